"""Which settings a camera has whose access units are stored as they come, and which datasets fit.

Its files hold parameter sets with every key frame: the camera's, and those of the encoder that
bridges what cannot be stored. Files without them do not join with such files, so one dataset holds
one kind of a camera; LeRobot's info block tells them apart by the encoder's options.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from recd.config.errors import RecdError
from recd.daemon.cameras.h264 import parse_sps
from recd.daemon.encode.codecs import CodecSettings, pinned_settings

PAYLOAD = "h264"
"""Payload kind of the ring of such a camera."""

_SET_ID = 31
OPTION, WORDS = "x264-params", f"repeat-headers=1:sps-id={_SET_ID}"
"""Option of the bridging encoder, stored in the dataset: parameter sets with every key frame, and
under a number that no camera is known to use."""


def is_passed_through(info: Mapping[str, Any]) -> bool:
    """True for the info block of a video that came from its camera in H.264."""
    return WORDS in str((info.get("video.extra_options") or {}).get(OPTION, ""))


def options_in(setup: bytes) -> dict[str, Any]:
    """Extra options of a file by its decoder configuration (avcC): with the bridging encoder's
    parameter set in it, it came from its camera; else empty."""
    if setup[:1] != b"\x01":
        return {}
    at = 6
    for _ in range(setup[5] & 0x1F):
        length = int.from_bytes(setup[at : at + 2])
        if parse_sps(setup[at + 2 : at + 2 + length]).set_id == _SET_ID:
            return {OPTION: WORDS}
        at += 2 + length
    return {}


def settings(wanted: CodecSettings, info: Mapping[str, Any], *, key: str) -> CodecSettings:
    """Settings of the bridging encoder. info: block of the dataset, empty for a new one.

    Raises RecdError when another codec is wanted or the dataset's video was encoded by recd.
    """
    if wanted.vcodec not in ("auto", "h264"):
        raise RecdError(
            f"dataset.encoder.vcodec: expected auto or h264 with {key} recorded as it comes "
            f"(fourcc: h264), found {wanted.vcodec}",
            mend="Set vcodec: h264, or fourcc: yuv420p for that camera: decoded and encoded again.",
            code="codec",
        )
    if info.get("video.codec"):
        if not is_passed_through(info):
            raise RecdError(
                f"{key}: expected video stored as its camera sent it, found video that recd "
                f"encoded ({info['video.codec']}) in the dataset",
                mend="Set fourcc: yuv420p for that camera, or record into a new dataset folder.",
                code="dataset",
            )
        return pinned_settings(info, replace(wanted, vcodec="h264"))
    options = dict(wanted.extra_options)
    if WORDS not in str(options.get(OPTION, "")):
        options[OPTION] = ":".join(filter(None, (str(options.get(OPTION, "")), WORDS)))
    return replace(wanted, vcodec="h264", extra_options=options)


def refuse_passed(info: Mapping[str, Any], *, key: str) -> None:
    """RecdError when recd would encode for a dataset whose video came from its camera."""
    if is_passed_through(info):
        raise RecdError(
            f"{key}: expected a camera recorded as it comes (fourcc: h264), as in the dataset's "
            "earlier episodes; found one whose pictures recd encodes",
            mend="Set fourcc: h264 for that camera, or record into a new dataset folder.",
            code="dataset",
        )
