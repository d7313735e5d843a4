"""Pictures in the client's form and the past of a stream, from a real daemon whose arm moves."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from recd.clients.policy import Observation, PolicyClient
from recd.config.errors import RecdError
from recd.config.policy_streams import chunk_dtype
from recd.config.policy_wire import Status, pack, unpack
from recd.config.policy_wishes import Encoding, PictureWish
from recd.config.streams import arm_sample_dtype
from recd.daemon.writer.sidelog import records_of
from recd.shm.clock import NS_PER_S
from tests.e2e.policybench import DT_S, FOLLOWER, OVERRIDES, PolicyBench
from tests.e2e.test_policy import arrows
from tests.rig import until

SMALL_RGB = PictureWish(Encoding.RGB, 224, 224)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PolicyBench]:
    with PolicyBench.running(tmp_path_factory.mktemp("robot"), *OVERRIDES) as started:
        yield started


def uses_opencv(bench: PolicyBench) -> bool:
    pid = bench.robot.workers()["gateway"].pid
    return "cv2" in Path(f"/proc/{pid}/maps").read_text()


def seen(policy: PolicyClient, **wishes) -> Observation:
    def found() -> Observation | None:
        try:
            return policy.observe(**wishes)
        except RecdError as error:
            if error.code != "observation":
                raise
            return None

    return until(found, "an observation")


def test_who_wishes_nothing_gets_the_cameras_bytes_and_no_opencv_is_loaded(bench) -> None:
    with bench.policy() as policy:
        plain = seen(policy)
        same = seen(policy, pictures=PictureWish(Encoding.JPEG), history={"front": [-1]})
        assert not uses_opencv(bench), "a JPEG that nothing has to change is passed on"
        assert plain.images["front"].startswith(b"\xff\xd8")
        assert same.images["front"].startswith(b"\xff\xd8")
        assert (plain.pictures, plain.past, plain.telemetry) == ({}, {}, {})
        seen(policy, pictures=SMALL_RGB)
        assert uses_opencv(bench)


def test_a_picture_comes_in_the_size_and_form_that_was_wished_for(bench) -> None:
    with bench.policy() as policy:
        rgb = seen(policy, pictures={"front": SMALL_RGB})
        picture = rgb.pictures["front"]
        assert picture.shape == (224, 224, 3)
        assert rgb.facts["front"]["inside"] == [0, 28, 224, 168]
        assert picture[:28].max() == picture[196:].max() == 0
        assert picture[28:196].mean() > 10
        assert rgb.facts["front"]["age_ns"] == rgb.sent_ns - rgb.t_ref_ns
        jpeg = seen(policy, pictures=PictureWish(Encoding.JPEG, 320, 240)).images["front"]
        decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert decoded.shape == (240, 320, 3)


def test_the_past_is_what_was_there_then(bench) -> None:
    """Frames byte for byte, positions as the robot told them while they were the present."""
    with bench.policy() as policy:
        kept: dict[int, Observation] = {}
        while len(kept) < 20:
            one = seen(policy)
            kept[one.t_ref_ns] = one
        asked = [-6, -3]
        now = seen(policy, history={"front": asked, "state": asked})
        row_ns = policy.robot["wishes"]["row_ns"]
        fitting = 0
        for at, offset in enumerate(asked):
            facts = now.facts[f"front@{offset}"]
            assert facts["back"] == offset
            assert facts["t"] == now.t_ref_ns + offset * row_ns + facts["error_ns"]
            assert abs(facts["error_ns"]) <= NS_PER_S // 10
            then = kept.get(facts["t"])
            if then is not None:
                fitting += 1
                assert now.past["front"][at] == then.images["front"]
        assert fitting, "at least one of them had been the present before"
        middle_ns = sorted(kept)[len(kept) // 2]
        back = middle_ns - now.t_ref_ns
        joints = policy.observe(cameras=[], again=True, history_ns={"state": [back]})
        (state,) = joints.past["state"]
        time_ns = joints.facts[f"state@{back}ns"]["t"]
        assert time_ns == joints.t_ref_ns + back
        times = sorted(kept)
        told = np.array([kept[t].state for t in times])
        expected = [np.interp(time_ns, times, told[:, joint]) for joint in range(5)]
        np.testing.assert_allclose(state[:5], expected, atol=3.0)


def test_telemetry_comes_when_it_is_asked_for(bench) -> None:
    with bench.policy() as policy:
        told = until(
            lambda: (
                (one := seen(policy, telemetry=True))
                and np.isfinite(one.telemetry["voltage"]).all()
                and one
            ),
            "telemetry",
        )
        assert set(told.telemetry) == {"load", "temperature", "voltage"}
        assert ((told.telemetry["voltage"] > 5) & (told.telemetry["voltage"] < 15)).all()
        assert ((told.telemetry["temperature"] > 0) & (told.telemetry["temperature"] < 90)).all()


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"history": {"front": [-600]}}, "its ring holds, found 20.00 s"),
        ({"history": {"hand": [-1]}}, "expected streams of this request"),
        ({"pictures": {"front": PictureWish(Encoding.RGB, 5000, 224)}}, "16..4096"),
        ({"pictures": {"front": PictureWish(Encoding.CAMERA, 64, 64)}}, "no size"),
    ],
)
def test_a_wish_that_cannot_be_fulfilled_is_refused_in_words(bench, wishes, words) -> None:
    with bench.policy() as policy:
        with pytest.raises(RecdError, match=words) as caught:
            policy.observe(**wishes)
        assert caught.value.code != "observation", "asking again would not help"
        assert seen(policy).images, "and the next request is served"


def test_the_prefix_is_what_the_arm_is_then_told(bench) -> None:
    """Against the goals of the side file; and nothing of a plan is told to who does not ask."""
    with bench.policy() as policy:
        bench.drive(policy)
        bench.client.start()
        until(lambda: (bench.send(policy), bench.robot.rows() >= 20)[1], "rows, the glide over")
        asked = bench.observe(policy)
        assert asked.prefix is None
        ack = policy.act(asked, bench.chunk(asked, 60), dt_s=DT_S, prefix_used=7)
        assert ack.status is Status.APPLIED
        told = seen(policy, prefix=True)
        arm = told.arms["main"]
        bench.in_state("HOLD", "queue_empty")
        assert not len(seen(policy, prefix=True).prefix.times_ns), "nothing is planned any more"
        saved = bench.client.stop()
    prefix = told.prefix
    assert prefix.times_ns[-1] == arm.queued_until_ns
    assert prefix.times_ns[0] < arm.need_by_ns < prefix.times_ns[-1]
    own = bench.robot.own(saved["uid"])
    samples = records_of(arrows(own / f"arm.{FOLLOWER}.arrows"), arm_sample_dtype(6))
    wrote = samples[samples["goal_written_ns"] > 0]
    between = wrote[(wrote["goal_written_ns"] >= prefix.times_ns[0])
                    & (wrote["goal_written_ns"] <= prefix.times_ns[-1])]  # fmt: skip
    assert len(between) > 50
    foretold = prefix.at(between["goal_written_ns"])
    # A goal is written up to a tick after it was made; the arm goes 15 units a second at most.
    np.testing.assert_allclose(between["limited"], foretold, atol=0.3)
    assert np.ptp(foretold[:, 0]) > 3.0, "it was a movement that was foretold"
    chunks = records_of(arrows(own / "chunks.arrows"), chunk_dtype(6))
    used = dict(zip(chunks["chunk"].tolist(), chunks["prefix_used"].tolist(), strict=True))
    assert used.pop(policy._chunk) == 7
    assert set(used.values()) == {-1}, "the others did not say"


def test_two_clients_with_one_wish_get_one_picture(bench) -> None:
    with bench.policy() as one, bench.policy() as other:

        def both() -> bool:
            a, b = seen(one, pictures=SMALL_RGB), seen(other, pictures=SMALL_RGB)
            if a.t_ref_ns != b.t_ref_ns:
                return False
            assert np.array_equal(a.pictures["front"], b.pictures["front"])
            return True

        until(both, "two observations of one moment")


def test_a_client_of_the_first_version_is_served_as_before(bench) -> None:
    with bench.policy() as policy:
        policy._observations.send_multipart(pack(
            {"ty": "get", "id": "old", "after": 0, "newer_than": 0, "max_wait_ms": 500}
        ))  # fmt: skip
        assert policy._observations.poll(10_000)
        header, buffers = unpack(policy._observations.recv_multipart())
        assert header["ty"] == "obs"
        assert list(buffers) == ["state", "state_newest", "front"]
        assert buffers["front"].encoding == "jpeg"


def test_a_daemon_that_does_not_know_wishes_is_told_apart(bench) -> None:
    with bench.policy() as policy:
        del policy.robot["wishes"]
        with pytest.raises(RecdError, match="expected a daemon that gives pictures"):
            policy.observe(pictures=SMALL_RGB)
