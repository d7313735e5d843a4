"""Profiles at robots, and the start gate: what does not fit is told, as expected and found."""

import numpy as np
import pytest

from recd.clients.adapters.gate import (
    Expected,
    check_dry_run,
    check_latency,
    check_reply,
    expected_of,
)
from recd.clients.adapters.profile import (
    Actions,
    Profile,
    ProfileError,
    bind,
    load_profile,
    profile_names,
)
from recd.clients.adapters.wire import Described, MismatchError, WireError, model_of
from recd.config.errors import ConfigError
from recd.config.load import load_robot
from recd.config.models import SO_JOINTS, PolicyServerConfig
from recd.daemon.policy.pictures import fitted, rgb_of

ONE = tuple(f"{joint}.pos" for joint in SO_JOINTS)
TWO = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in ONE)
STATE = np.array([10.0, 20.0, 30.0, 40.0, 50.0, 60.0])
ARM = ONE[:5]
REACH_NS = {"front": 1_500_000_000, "wrist": 1_500_000_000, "state": 3_000_000_000}
LIMITS = {"names": ONE, "low": np.full(6, -100.0), "high": np.full(6, 100.0)}


def bound(name: str, wire: str = "openpi", joints=ONE, cameras=("front", "wrist"), **places):
    return bind(load_profile(name, wire=wire), joints=joints, cameras=cameras, places=places)


def test_every_profile_that_comes_with_recd_fits_the_robot_that_it_is_for() -> None:
    assert set(profile_names()) == {"aloha", "droid", "lerobot", "libero", "so101"}
    assert bound("libero").mask.all()
    assert bound("droid").mask.all()
    assert bound("so101", "gr00t").mask.all()
    assert bound("lerobot", "lerobot").mask.all()
    two = bound("aloha", joints=TWO, cameras=("cam_high", "cam_left_wrist", "cam_right_wrist"))
    assert two.mask.all()
    assert two.state["state"].width == 14


def test_aloha_has_an_empty_place_where_an_so101_has_no_joint() -> None:
    two = bound("aloha", joints=TWO, cameras=("cam_high", "cam_left_wrist", "cam_right_wrist"))
    sent = two.view(np.arange(12, dtype=np.float64) * 57.29578)["state"]
    assert sent[3] == sent[10] == 0.0
    np.testing.assert_allclose(sent[[0, 1, 2, 4, 5]], [0, 1, 2, 3, 4], rtol=1e-5)
    back = two.chunk({"actions": np.tile(sent, (3, 1)).astype(float)}, np.zeros(12), 0.02)
    np.testing.assert_allclose(back[2], np.arange(12) * 57.29578, rtol=1e-5, atol=1e-5)


def test_velocities_add_up_from_the_observation_and_the_gripper_stays_a_position() -> None:
    droid = bound("droid")
    reply = np.zeros((3, 8))
    reply[:, 0], reply[:, 7] = 1.0, 0.25
    chunk = droid.chunk({"actions": reply}, STATE, 0.1)
    np.testing.assert_allclose(chunk[:, 0], 10 + 5.729578 * np.array([1, 2, 3]))
    np.testing.assert_allclose(chunk[:, 5], 25.0)
    np.testing.assert_allclose(chunk[:, 1:5], np.tile(STATE[1:5], (3, 1)))


def test_distances_are_from_the_observation_not_from_row_to_row() -> None:
    profile = Profile(wire="openpi", actions={"a": Actions(means="relative")})
    chunk = bind(profile, joints=ONE, cameras=(), places={}).chunk({"a": np.ones((2, 6))}, STATE, 1)
    np.testing.assert_allclose(chunk, np.tile(STATE + 1, (2, 1)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cameras": ("top",)}, "images.observation/image: expected one of the cameras top, found"),
        ({"wrist": "nowhere"}, "cameras.wrist: expected one of front, wrist, found 'nowhere'"),
        ({"side": "front"}, "cameras.side: expected one of front, wrist, found 'side'"),
    ],
)
def test_a_stream_that_is_not_there_is_named_with_those_that_are(options, said) -> None:
    with pytest.raises(ProfileError, match=said) as refused:
        bound("libero", **options)
    assert "policy.server.cameras" in refused.value.mend


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wire: gr00t\nactions: {a: {}}", "expected a profile for openpi, found one for gr00t"),
        ("wire: openpi\nactions: {a: {means: torque}}", "means"),
        ("wire: openpi\nactions: {a: {}}\nsecret: 1", "secret"),
        ("[", "not YAML"), ("wire: openpi\nactions: {a: {columns: [1.5]}}", "columns"),
    ],
)  # fmt: skip
def test_a_profile_that_cannot_be_meant_is_refused_by_its_key(tmp_path, text, said) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ProfileError, match=said):
        load_profile(str(tmp_path / "mine.yaml"), wire="openpi")


def test_joints_that_the_robot_lacks_or_that_stand_twice_are_refused() -> None:
    for columns, said in ((["elbow.pos"], "found 'elbow.pos'"), ([ONE[0], ONE[0]], "twice"),
                          ([None], "expected a joint")):  # fmt: skip
        profile = Profile(wire="openpi", actions={"a": Actions(columns=columns)})
        with pytest.raises(ProfileError, match=said):
            bind(profile, joints=ONE, cameras=(), places={})


@pytest.mark.parametrize(
    ("described", "server", "said"),
    [
        (Described(horizon=16), {"horizon": 50}, "horizon: expected 50, found 16"),
        (Described(step_s=0.1), {}, "step_s: expected 0.0333333, found 0.1"),
        (Described(images=("top",)), {}, "images: the profile has front, wrist, the server top"),
        (Described(actions=("arm",)), {}, "actions: the profile has single_arm, gripper"),
        (
            Described(columns={"gripper": ("jaw",)}),
            {},
            "expected the columns gripper.pos, found jaw",
        ),
        (
            Described(history={"images": (-1, 1)}),
            {},
            r"images: expected steps of 0 .*, found -1, 1",
        ),
        (Described(history={"state": (0, 0)}), {}, r"state: expected steps of 0 .* each once"),
        (Described(history={"state": ()}), {}, "state: expected steps of 0 .*, found none"),
        (
            Described(history={"images": (-60, 0)}),
            {},
            "at most 1.50 s back, which the ring of front",
        ),
        (
            Described(columns={"single_arm": ARM[::-1]}),
            {},
            "actions.single_arm: expected the columns",
        ),
    ],
)
def test_what_the_server_says_of_itself_has_to_fit(described, server, said) -> None:
    with pytest.raises(MismatchError, match=said) as refused:
        expected_of(described, bound("so101", "gr00t"), PolicyServerConfig(**server), row_s=1 / 30,
                    reach_ns=REACH_NS)  # fmt: skip
    assert refused.value.mend


def test_the_robots_own_joints_in_another_order_are_refused_where_a_profile_says_joints() -> None:
    described = Described(columns={"actions": ONE[::-1]})
    with pytest.raises(MismatchError, match=r"expected the columns shoulder_pan.pos, .*found grip"):
        expected_of(described, bound("libero"), PolicyServerConfig(), row_s=1 / 30,
                    reach_ns=REACH_NS)  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (np.zeros((4, 5)), MismatchError, "expected 6 columns, found 5"),
        (np.zeros((3, 6)), MismatchError, "horizon: expected 4, found 3"),
        (np.full((4, 6), np.nan), WireError, "finite"),
        (np.full((4, 6), np.inf), WireError, "finite"),
    ],
)
def test_a_reply_that_is_not_as_agreed_is_refused(reply, kind, said) -> None:
    with pytest.raises(kind, match=said):
        check_reply({"actions": reply}, bound("libero"), Expected(4, 0.1))


def test_a_chunk_far_beyond_the_limits_is_refused_and_a_little_beyond_is_clipped() -> None:
    libero = bound("libero")
    check_dry_run(np.full((2, 6), 105.0), libero, **LIMITS)
    with pytest.raises(MismatchError, match=r"shoulder_pan.pos: expected -100..100, found 5000"):
        check_dry_run(np.full((2, 6), 5000.0), libero, **LIMITS)


def test_inference_has_to_be_shorter_than_what_it_gives() -> None:
    check_latency([9.0, 0.2, 0.2], 15, 1 / 30)
    with pytest.raises(MismatchError, match=r"less than 0.48 s .*found 0.60 s"):
        check_latency([0.1, 0.6, 0.6], 15, 1 / 30)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("policy.server.timeout_s=0", "timeout_s"), ("policy.server.timeout_s=-1.0", "timeout_s"),
        ("policy.server.warm_up_timeout_s=0", "warm_up_timeout_s"),
        ("policy.server.horizon=0", "horizon"), ("policy.type=grpc", "type"),
        ("policy.server.address=http://x:1", "address"),
        ("policy.server.address=192.168.0.7:8000", "address"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_work_is_refused_by_key(change, key) -> None:
    with pytest.raises(ConfigError) as refused:
        load_robot("demo", overrides=("policy.type=openpi", change), check_machine=False)
    assert key in str(refused.value)


def test_a_server_on_another_computer_needs_encryption_or_a_word_that_it_may_do_without() -> None:
    far = "policy.server.address=10.0.0.7:8000"
    for allowed in (
        ("policy.server.address=wss://policies.example:443",),
        (far, "policy.server.unencrypted=true"),
    ):
        load_robot("demo", overrides=("policy.type=openpi", *allowed), check_machine=False)


def test_pictures_keep_their_shape_on_black() -> None:
    wide = np.full((480, 640, 3), 200, np.uint8)
    small, _ = fitted(wide, 224, 224)
    assert small.shape == (224, 224, 3)
    assert (small[:28] == 0).all()
    assert (small[28:196] == 200).all()
    raw = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    facts = {"fmt": "rgb24", "w": 4, "h": 4}
    assert (rgb_of(raw.tobytes(), facts) == raw).all()
    assert (rgb_of(raw.tobytes(), facts, rotation=180) == raw[::-1, ::-1]).all()


def test_a_model_is_one_line_of_bounded_length_without_a_secret() -> None:
    told = {"checkpoint": "fold\nv3", "horizon": 50, "mean": [0.0], "more": {"a": 1}}
    address = "wss://user:password@server:8000/infer?token=1"
    assert model_of(address, told) == "wss://server:8000/infer checkpoint=fold v3 horizon=50"
    assert len(model_of("tcp://server:1", {"name": "é" * 300}).encode()) <= 256
