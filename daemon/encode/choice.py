"""Which codec a session uses: the dataset's own, else the configured one, else what a probe finds.

A dataset that has video pins its codec, size and options in meta/info.json; nothing configured may
change them. Several encoder processes that choose at the same time choose the same.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recd.config.errors import RecdError
from recd.config.streams import frame_payload
from recd.daemon.encode import pass_through
from recd.daemon.encode.codecs import CodecSettings, pinned_settings
from recd.daemon.encode.probe import CodecChoice, probe


@dataclass(frozen=True, slots=True)
class CodecPolicy:
    """What decides about the codec of one camera. robot: the whole configuration, plain; payload:
    kind of the camera's ring."""

    robot: Mapping[str, Any]
    key: str
    size: tuple[int, int]
    payload: str = ""

    @property
    def passes_through(self) -> bool:
        """True for a camera whose access units are stored as they come."""
        return self.payload == pass_through.PAYLOAD

    @property
    def makes_video(self) -> bool:
        """False for LeRobot's `image` features."""
        return bool(self.robot["dataset"].get("video", True))

    def pinned(self, wanted: CodecSettings) -> CodecSettings | None:
        """Settings that the dataset, or a camera recorded as it comes, demands; None while there is
        neither.

        Raises RecdError when its video has another size or a codec that recd does not write.
        """
        info = self._stored_info()
        if self.passes_through and not info.get("video.codec"):
            return pass_through.settings(wanted, {}, key=self.key)
        if not info.get("video.codec"):
            return None
        stored = (info.get("video.width"), info.get("video.height"))
        if None not in stored and stored != self.size:
            raise RecdError(
                f"{self.key}: the dataset has {stored[0]}x{stored[1]}, this camera gives "
                f"{self.size[0]}x{self.size[1]}",
                mend="set the camera to the dataset's size, or record into a new dataset folder",
                code="dataset",
            )
        if self.passes_through:
            return pass_through.settings(wanted, info, key=self.key)
        pass_through.refuse_passed(info, key=self.key)
        return pinned_settings(info, wanted)

    def _stored_info(self) -> dict[str, Any]:
        path = Path(self.robot["dataset"]["root"]).expanduser() / "meta" / "info.json"
        try:
            features = json.loads(path.read_text())["features"]
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, KeyError) as error:
            raise RecdError(
                f"{path}: not readable as a dataset's info: {error}",
                mend="recctl verify tells what is wrong with the dataset",
                code="dataset",
            ) from error
        return dict(features.get(self.key, {}).get("info") or {})

    def choose(self, wanted: CodecSettings) -> tuple[CodecSettings, CodecChoice | None]:
        """(settings, figures of the probe if there was one). May take seconds. Raises RecdError."""
        pinned = self.pinned(wanted)
        if pinned is not None:
            return pinned, None
        if wanted.vcodec != "auto":
            return wanted, None
        choice = probe(
            list(self.encoded().values()), fps=self.robot["dataset"]["fps"], wanted=wanted
        )
        return choice.settings, choice

    def encoded(self) -> dict[str, tuple[int, int]]:
        """camera -> (width, height) in the dataset, of all whose pictures are encoded here."""
        sizes = {}
        for name, camera in self.robot["cameras"].items():
            if frame_payload(camera["source"], camera["fourcc"]) != pass_through.PAYLOAD:
                size = (camera["width"], camera["height"])
                turned = camera.get("rotation", 0) not in (0, 180)
                sizes[name] = size[::-1] if turned else size
        return sizes
