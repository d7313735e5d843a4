import pytest

from recd.config.errors import ConfigError
from recd.config.load import load_robot
from recd.daemon.arms.models import ARM_MODELS, joint_units
from recd.daemon.arms.normalize import joint_scale
from recd.daemon.arms.side import arm_side, goal_path
from recd.daemon.policy.seat import latencies_ns, rules_of

MS = 1_000_000


@pytest.mark.parametrize(
    ("told", "latency_ms"),
    [((), 0), (("policy.action_latency_ms=40",), 40),
     (("policy.action_latency_ms=40", "arms.main.action_latency_ms=15"), 15),
     (("policy.action_latency_ms=40", "arms.main.action_latency_ms=0"), 0),
     (("policy.action_latency_ms=40", "arms.main.action_latency_ms={gripper: 15}"), 15)],
)  # fmt: skip
def test_a_pair_of_another_delay_than_the_rest_is_told_earlier_by_its_own(
    told: tuple[str, ...], latency_ms: int
) -> None:
    robot = load_robot("demo", overrides=("policy={}", *told), check_machine=False)
    config = robot.arms["main"].model_dump()
    joints = ARM_MODELS["so101"]
    scales = tuple(joint_scale(1000, 3000, unit=unit, inverted=False)
                   for unit in joint_units(joints, use_degrees=True))  # fmt: skip
    side = arm_side("main", "follower", config, runtime_dir="/run/recd")
    assert robot.policy is not None
    path = goal_path("main", config, scales, side.names)
    rules = rules_of(robot.policy.model_dump(), config, side, path)
    assert rules.latency_ns == latency_ms * MS


def test_each_joint_has_its_own_delay_where_one_is_told() -> None:
    names = ("shoulder_pan", "gripper")
    for own, expected in ((None, (40, 40)), (15, (15, 15)), ({"gripper": 60}, (40, 60))):
        found = latencies_ns({"action_latency_ms": 40}, {"action_latency_ms": own}, names)
        assert found == tuple(latency_ms * MS for latency_ms in expected)


def test_a_delay_of_a_joint_that_no_arm_has_is_refused_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"arms\.main\.action_latency_ms"):
        load_robot("demo", overrides=("arms.main.action_latency_ms={elbow: 15}",),
                   check_machine=False)  # fmt: skip
