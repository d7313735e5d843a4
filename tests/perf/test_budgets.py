from dataclasses import replace

import pytest

from recd.config.errors import ConfigError
from recd.config.load import load_robot, preset_names
from recd.config.streams import STATUS_STATES
from recd.daemon.supervisor.processes import process_table
from recd.perf import budgets

HEAD = (
    '[[budget]]\nsubject = "{}"\nmetric = "{}"\nunit = "{unit}"\nlimit = 1\nrig = "{rig}"\n'
    'reason = "{}"\n'
)


def text_of(*words, unit="cores", rig="any"):
    return HEAD.format(*words, unit=unit, rig=rig)


def budget(subject, metric, limit, rig="any"):
    unit = budgets.METRICS[subject.partition(":")[0]][metric].unit
    return budgets.Budget(subject, metric, unit, limit, rig, "why")


@pytest.fixture(scope="module")
def rows():
    return budgets.load_budgets()


@pytest.mark.parametrize("preset", preset_names())
def test_every_process_and_stream_of_every_preset_has_a_budget_row(preset, rows):
    robot = load_robot(preset)
    assert budgets.without_row(budgets.subjects_of(robot), rows) == []


def test_the_table_of_processes_is_walked_with_all_its_streams():
    subjects = budgets.subjects_of(load_robot("demo"))
    assert {
        "process:supervisor", "process:sim", "process:camera:front", "process:encoder:wrist",
        "process:arm:main.leader", "process:writer", "stream:cam.front", "stream:ticks.wrist",
        "stream:arm.main.follower", "stream:telemetry.main.leader", "stream:leader.main",
        "stream:status.writer",
    } <= set(subjects)  # fmt: skip


@pytest.mark.parametrize("lost", ["process:writer", "stream:ticks.*", "process:camera:*"])
def test_a_process_or_stream_without_a_row_is_an_error_that_names_it(lost, rows):
    fewer = [row for row in rows if row.subject != lost]
    with pytest.raises(ConfigError) as error:
        budgets.require_complete(load_robot("demo"), fewer)
    assert lost.partition("*")[0] in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (text_of("engine:x", "cores", "why"), "process, stream, run"),
        (text_of("process:x", "lost", "why"), "cores"),
        (text_of("process:x", "cores", " "), "a reason"),
        (text_of("process:x", "cores", "why", unit="MB"), "'cores'"),
        (text_of("process:x", "cores", "why", rig="mine"), "any, bench"),
        ('[[budget]]\nsubject = "run"\n', "limit"),
        ("[[budget\n", "TOML"),
    ],
)
def test_a_row_that_is_none_is_refused_with_what_was_expected(tmp_path, text, said):
    path = tmp_path / "budgets.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        budgets.load_budgets(path)
    assert said in str(error.value)


def test_a_budget_is_judged_by_the_median_of_the_runs(run):
    slow = {**run, "waits": {**run["waits"], "stop_to_durable_ms": 5000.0}}
    row = budget("run", "stop_to_durable_ms", 100.0)
    (judged,) = budgets.judge([run, slow, run], [], [row])
    assert (judged.value, judged.kept) == (90.0, True)
    (judged,) = budgets.judge([run, slow, slow], [], [row])
    assert (judged.value, judged.kept) == (5000.0, False)


def test_what_was_not_measured_is_neither_kept_nor_broken(run):
    row = budget("process:*", "cores", 0.05)
    names = ["process:camera:front", "process:arm:main.follower", "process:writer"]
    kept = {j.subject: j.kept for j in budgets.judge([run], names, [row])}
    assert kept == dict(zip(names, [True, False, None], strict=True))


def test_every_metric_finds_its_value_in_a_run(run):
    for kind in ("process", "stream", "run"):  # of policies: test_policy_perf.py
        for metric in budgets.METRICS[kind].values():
            metric.of(run, {"process": "arm:main.follower", "stream": "cam.front"}.get(kind, ""))


def test_a_stricter_limit_turns_the_same_figure_over(run, rows):
    row = next(row for row in rows if row.metric == "start_reply_ms")
    assert budgets.judge([run], [], [row])[0].kept
    assert not budgets.judge([run], [], [replace(row, limit=1.0)])[0].kept


def test_limits_of_the_base_case_judge_no_other_load_and_counts_judge_all(run):
    rows = [budget("run", "total_cores", 0.01, "bench"), budget("run", "unflagged", 0, "any")]
    judged = [j.metric for j in budgets.judge([run], [], rows, rig="any")]
    assert judged == ["unflagged"]
    assert len(budgets.judge([run], [], rows, rig="bench")) == 2


WITH_POLICIES = (*budgets.POLICIES, "arms.main.hand_over.leader=driven")


def test_every_kind_of_process_that_a_configuration_can_start_has_a_budget_row(rows):
    robot = load_robot("demo", overrides=WITH_POLICIES)
    assert {row.kind for row in process_table(robot)} == set(STATUS_STATES)
    assert budgets.without_row(budgets.subjects_of(robot), rows) == []


@pytest.mark.parametrize(
    "lost", ["process:adapter", "process:gateway", "stream:chunks", "stream:meeting.*"]
)
def test_an_adapter_or_a_gateway_without_a_row_is_an_error_too(lost, rows):
    fewer = [row for row in rows if row.subject != lost]
    with pytest.raises(ConfigError, match=lost.partition("*")[0]):
        budgets.require_complete(load_robot("demo", overrides=WITH_POLICIES), fewer)
