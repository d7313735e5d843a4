"""What a server is shown: the present, and the past where it asks for that, in its own order."""

import numpy as np
import pytest

from recd.clients.adapters.gr00t import Gr00tWire
from recd.clients.adapters.looking import Looking, looking_of
from recd.clients.adapters.profile import bind, load_profile
from recd.clients.adapters.wire import Described, View, WireError
from recd.clients.observation import Observation
from recd.clients.policybench.gr00t_server import Gr00tServer
from recd.config.models import SO_JOINTS, PolicyServerConfig
from recd.config.policy_wishes import Encoding, PictureWish

JOINTS = tuple(f"{joint}.pos" for joint in SO_JOINTS)
STEP_S = 0.1
MS = 1_000_000


def picture(value: int) -> np.ndarray:
    return np.full((4, 4, 3), value, np.uint8)


def seen(**more: object) -> Observation:
    values = {
        "number": 1, "t_ref_ns": 1, "state": np.arange(6, dtype=np.float32), "images": {},
        "facts": {}, "arms": {}, "task": "fold it", "sent_ns": 2,
        "pictures": {"front": picture(9), "wrist": picture(8)}, **more,
    }  # fmt: skip
    return Observation(**values)


def looking(**history: tuple[int, ...]) -> Looking:
    binding = bind(load_profile("so101", wire="gr00t"), joints=JOINTS,
                   cameras=("front", "wrist"), places={})  # fmt: skip
    return looking_of(binding, Described(history=history), size=224, step_s=STEP_S)


def test_a_server_of_the_present_costs_no_look_back_and_pictures_come_in_its_size() -> None:
    wanted = looking(images=(0,)).wanted
    assert wanted == {"cameras": ["front", "wrist"], "history_ns": {},
                      "pictures": PictureWish(Encoding.RGB, 224, 224)}  # fmt: skip
    view = looking().view(seen())
    assert {key: frames.shape for key, frames in view.images.items()} == {
        "front": (1, 4, 4, 3), "wrist": (1, 4, 4, 3),
    }  # fmt: skip
    assert view.state["single_arm"].tolist() == [[0, 1, 2, 3, 4]]
    assert view.prompt == "fold it"


def test_steps_of_the_past_are_asked_for_in_time_and_shown_in_the_servers_order() -> None:
    back = looking(images=(-2, 0), state=(0, -1, -3))
    assert back.wanted["history_ns"] == {
        "front": [-200 * MS], "wrist": [-200 * MS], "state": [-100 * MS, -300 * MS],
    }  # fmt: skip
    past = {"front": (picture(1),), "wrist": (picture(2),),
            "state": (np.full(6, 10, np.float32), np.full(6, 30, np.float32))}  # fmt: skip
    view = back.view(seen(past=past))
    assert view.images["front"][:, 0, 0, 0].tolist() == [1, 9]
    assert view.images["wrist"][:, 0, 0, 0].tolist() == [2, 8]
    assert view.state["gripper"].tolist() == [[5], [10], [30]]


def test_a_joint_that_was_not_known_at_one_of_the_times_is_named() -> None:
    hole = np.arange(6, dtype=np.float32)
    hole[4] = np.nan
    assert looking(state=(-1, 0)).unknown(seen(past={"state": (hole,)})) == (4,)
    assert looking().unknown(seen()) == ()


@pytest.mark.parametrize("form", ["B", "C", "D"])
def test_every_form_of_gr00t_carries_the_steps_that_its_server_wants(form) -> None:
    profile = load_profile("so101", wire="gr00t")
    server = Gr00tServer(profile, form=form, history=(-2, 0), state_history=(-3, -1, 0))
    wire = Gr00tWire(PolicyServerConfig(address=server.address), profile)
    try:
        wire.connect(5.0)
        described = wire.describe(5.0)
        assert described.history == {"images": (-2, 0), "state": (-3, -1, 0)}
        images = dict.fromkeys(("front", "wrist"), np.zeros((2, 4, 4, 3), np.uint8))
        state = {"single_arm": np.zeros((3, 5), np.float32),
                 "gripper": np.zeros((3, 1), np.float32)}  # fmt: skip
        reply = wire.infer(View(images, state, "fold it"), 5.0)
        assert {key: values.shape[1] for key, values in reply.items()} == {
            "single_arm": 5, "gripper": 1,
        }  # fmt: skip
        with pytest.raises(WireError, match="2 steps expected, got 1"):
            wire.infer(View({k: v[:1] for k, v in images.items()}, state, "fold it"), 5.0)
    finally:
        wire.close()
        server.close()
