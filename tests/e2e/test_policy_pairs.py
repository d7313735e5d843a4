"""Two pairs of arms with different holders: a policy drives one, a person leads the other."""

from pathlib import Path

import numpy as np
import pyarrow.dataset as ds

from recd.clients.policy import NoObservationError, PolicyClient
from recd.config.policy_wire import Status
from recd.config.streams import GoalSource
from recd.daemon.sim import launch
from recd.perf.ports import free_ports
from tests.e2e.armbench import Bench
from tests.e2e.policybench import DT_S
from tests.e2e.test_policy import arrows
from tests.rig import until

LEFT, RIGHT = 0, 1


def test_a_policy_has_one_pair_a_person_the_other_and_each_row_says_who_had_which(
    tmp_path: Path,
) -> None:
    with launch.running(tmp_path / "sim", pairs=["left", "right"], hand="attend") as arms:
        endpoint = f"tcp://127.0.0.1:{free_ports(4)}"
        two = Bench(arms, tmp_path, "arms.main=null", f"policy.endpoint={endpoint}",
                    "dataset.columns=full")  # fmt: skip
        try:
            two.robot.start()
            for pair in ("left", "right"):
                two.teleoperating(f"{pair}.follower")
            mark = two.control.mark()
            saved = _recorded(two, endpoint)
            two.assert_gentle(mark, "left.follower")
            two.assert_gentle(mark, "right.follower")
        finally:
            two.stop_daemon()
    rows = arrows(two.robot.own(saved["uid"]) / "rows.arrows")
    assert rows.schema.metadata[b"recd.pairs"] == b"left,right"
    source, chunk, corrected = (
        np.array(rows[f"recd.pair_{name}"].to_pylist())
        for name in ("control_source", "chunk_id", "intervention")
    )
    assert (source[:, LEFT] == GoalSource.POLICY).sum() > 10
    assert set(source[:, RIGHT].tolist()) == {GoalSource.LEADER}
    assert (chunk[source[:, LEFT] == GoalSource.POLICY, LEFT] > 0).mean() > 0.9
    assert set(chunk[:, RIGHT].tolist()) == {-1}
    assert not corrected.any()
    assert rows["recd.control_source"].to_pylist() == source[:, LEFT].tolist()
    assert "fold it" in rows["task"].to_pylist()
    tasks = {pair: rows[f"recd.pair_task.{pair}"].to_pylist() for pair in ("left", "right")}
    assert set(tasks["right"]) == {""}
    assert [own or saved["task"] for own in tasks["left"]] == rows["task"].to_pylist()
    limited, sent, asked = (
        np.array(rows[f"recd.{name}"].to_pylist()) for name in ("limited", "sent", "requested")
    )
    assert asked.shape == limited.shape == sent.shape == (len(rows), 12)
    assert np.array_equal(asked, np.array(rows["action"].to_pylist())), (
        "what was asked is the action"
    )
    assert np.abs(sent - limited).max() < 0.2, "steps of a servo"
    _assert_the_dataset_shows_the_same(two, rows)


def _assert_the_dataset_shows_the_same(two: Bench, rows) -> None:
    """Every column of the arms that the rows were logged with, value for value."""
    data = ds.dataset(two.robot.root / "data", format="parquet").to_table()
    own = [name for name in rows.column_names if name.startswith("recd.") and "camera" not in name]
    assert "recd.pair_chunk_id" in own
    assert [name for name in own if data[name].to_pylist() != rows[name].to_pylist()] == []


def _recorded(two: Bench, endpoint: str) -> dict:
    """An episode in which a policy swings the left arm's first joint, by way of the loopback."""
    with PolicyClient(endpoint=endpoint, name="left hand") as policy:
        policy.acquire("left")
        mask = [name.startswith("left") for name in policy.names]
        swing = 5.0 * np.sin(np.linspace(0, 6, 60))[:, None] * np.eye(1, len(mask))
        center = until(lambda: _seen(policy), "an observation").state.astype(float)

        def sent() -> Status | None:
            seen = _seen(policy)
            if seen is None:
                return None
            ack = policy.act(seen, np.nan_to_num(center) + swing, dt_s=DT_S, mask=mask,
                             facts={"task": "fold it"})  # fmt: skip
            return ack.status

        until(lambda: two.client.hold("left") and sent() is Status.SHADOW, "a sound chunk")
        until(lambda: [sent() for _ in range(4)][-1] is Status.SHADOW, "enough of them")
        two.client.call("policy.attach", pair="left")
        until(lambda: sent() is Status.APPLIED, "the left arm to be driven")
        two.client.start()
        until(lambda: (sent(), two.robot.rows() >= 40)[1], "rows")
        assert two.motion("right")["state"] == "TELEOP"
        return two.client.stop()


def _seen(policy: PolicyClient):
    try:
        return policy.observe()
    except NoObservationError:
        return None
