"""What a client may wish of its pictures and of the past, and how the rest is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd.config.messages import MessageError
from recd.config.policy_wire import pack, unpack
from recd.config.policy_wishes import (
    NOTHING,
    PIXEL_BYTES_MOST,
    Encoding,
    Fit,
    PictureWish,
    Source,
    Wishes,
    read_wishes,
)
from recd.shm.clock import NS_PER_S

ROW_NS = NS_PER_S // 30
CAMERAS = ("front", "wrist")
SOURCES = {
    "front": Source(NS_PER_S, 640, 480),
    "wrist": Source(2 * NS_PER_S, 480, 640),
    "state": Source(59 * NS_PER_S),
}


def wishes(**header: Any) -> Wishes:
    """As they arrive, over the wire."""
    told, _ = unpack(pack({"ty": "get", **header}))
    return read_wishes(told, CAMERAS, SOURCES, row_ns=ROW_NS)


def test_who_wishes_nothing_is_not_looked_at() -> None:
    assert wishes(cameras=["front"]) is NOTHING


def test_a_wish_comes_out_as_it_was_told() -> None:
    wish = PictureWish(Encoding.JPEG, 224, 160, Fit.STRETCH, 75)
    found = wishes(pictures={"front": wish.told()}, history={"front": [-3, -1], "state": [-2]},
                   history_ns={"front": [-50_000_000]}, telemetry=True, prefix=True)  # fmt: skip
    assert found.pictures == {"front": wish}
    assert found.telemetry
    assert found.prefix
    assert [back.name("front") for back in found.history["front"]] == [
        "front@-3", "front@-1", "front@-50000000ns",
    ]  # fmt: skip
    assert [back.ns for back in found.history["front"]] == [-3 * ROW_NS, -ROW_NS, -50_000_000]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"pictures": []}, "expected a map"),
        ({"pictures": {"hand": {}}}, "front, wrist"),
        ({"pictures": {"state": {}}}, "front, wrist"),
        ({"pictures": {"front": "rgb8"}}, "expected a map"),
        ({"pictures": {"front": {"enc": "png"}}}, "camera, jpeg, rgb8"),
        ({"pictures": {"front": {"enc": "rgb8", "fit": "crop"}}}, "pad, stretch"),
        ({"pictures": {"front": {"enc": "rgb8", "colour": 1}}}, "expected enc, size"),
        ({"pictures": {"front": {"enc": "jpeg", "quality": 0}}}, "1..100"),
        ({"pictures": {"front": {"enc": "jpeg", "quality": True}}}, "1..100"),
        ({"pictures": {"front": {"enc": "rgb8", "size": [224]}}}, "16..4096"),
        ({"pictures": {"front": {"enc": "rgb8", "size": [0, 224]}}}, "16..4096"),
        ({"pictures": {"front": {"enc": "rgb8", "size": [2**63, 224]}}}, "16..4096"),
        ({"pictures": {"front": {"enc": "rgb8", "size": [224.0, 224]}}}, "16..4096"),
        ({"pictures": {"front": {"enc": "camera", "size": [224, 224]}}}, "no size"),
        ({"history": {"arm": [-1]}}, "front, wrist, state"),
        ({"history": {"front": [0]}}, "below 0"),
        ({"history": {"front": [1]}}, "below 0"),
        ({"history": {"front": [-1, -1]}}, "different"),
        ({"history": {"front": [-(2**63)]}}, "below 0"),
        ({"history": {"front": [-1.5]}}, "below 0"),
        ({"history": {"front": -1}}, "below 0"),
        ({"history": {"front": [-31]}}, r"at most 1.00 s back.*found 1.03 s"),
        ({"history_ns": {"wrist": [-2 * NS_PER_S - 1]}}, "at most 2.00 s"),
        ({"history": {"state": list(range(-70, 0))}}, "at most 56 pictures"),
        ({"telemetry": 1}, "true or false"),
        ({"prefix": [1]}, "true or false"),
    ],
)
def test_a_bad_wish_is_refused_with_what_was_expected_and_found(header: Any, words: str) -> None:
    with pytest.raises(MessageError, match=words) as caught:
        wishes(**header)
    assert "expected" in caught.value.message
    assert "found" in caught.value.message


def test_more_pixels_than_an_answer_may_have_are_refused_before_any_is_made() -> None:
    large = {"enc": "rgb8", "size": [4096, 4096]}
    assert wishes(pictures={"front": large}).pictures["front"].width == 4096
    with pytest.raises(MessageError, match="MiB of pixels") as caught:
        wishes(pictures={"front": large, "wrist": large})
    assert str(PIXEL_BYTES_MOST // 2**20) in caught.value.message
    with pytest.raises(MessageError, match="MiB of pixels"):
        wishes(pictures={"front": large}, history={"front": [-1]})


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats()
    | st.sampled_from(["front", "state", "rgb8", "enc", "size", ""]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["front", "state", "enc", "size", "fit"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(header=st.dictionaries(
    st.sampled_from(["pictures", "history", "history_ns", "telemetry", "prefix"]), PLAIN, max_size=3
))  # fmt: skip
def test_whatever_is_wished_for_is_refused_in_words_or_bounded(header: Any) -> None:
    words = ""
    try:
        found = wishes(**header)
    except MessageError as error:
        words, found = error.message, NOTHING
    assert words or all(
        -back.ns <= SOURCES[stream].reach_ns
        for stream, places in found.history.items()
        for back in places
    )


def test_the_bytes_on_the_page_are_the_wish_that_it_tells_of() -> None:
    page = (Path(__file__).parents[2] / "docs" / "policy_api.md").read_text()
    begun = page.index("85 a1 76 01")
    header, _ = unpack([bytes.fromhex(page[begun : page.index("```", begun)])])
    found = read_wishes(header, CAMERAS, SOURCES, row_ns=ROW_NS)
    assert found.pictures == {"front": PictureWish(Encoding.RGB, 224, 224)}
    assert [back.name("front") for back in found.history["front"]] == ["front@-3"]
    assert [back.name("state") for back in found.history["state"]] == ["state@-1"]


def test_the_bytes_of_a_prefix_on_the_page_are_what_it_tells_of() -> None:
    page = (Path(__file__).parents[2] / "docs" / "policy_api.md").read_text()
    parts = page[page.index("## What is planned") :].split("```\n")
    wish, times, places = (bytes.fromhex(parts[at]) for at in (2, 4, 6))
    header, _ = unpack([wish])
    assert read_wishes(header, CAMERAS, SOURCES, row_ns=ROW_NS) == Wishes(prefix=True)
    assert np.frombuffer(times, "<i8").tolist() == [14881054104936, 14881087438269]
    assert np.frombuffer(places, "<f4").reshape(2, 6)[:, 0].tolist() == [0.0, 0.5]
