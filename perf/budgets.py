"""Budgets: what each process and stream may cost, as rows with reasons. Pure.

Every process and stream of the process table must have a row; measured rows are judged against the
median over the runs.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from recd.config.errors import ConfigError, ConfigProblem
from recd.config.models import RobotConfig
from recd.daemon.supervisor.processes import process_table
from recd.perf.costs import FORKSERVER, SUPERVISOR
from recd.perf.figures import at_path
from recd.perf.pass_through import finish_ms

BUDGETS = Path(__file__).with_name("budgets.toml")

ANY, BENCH = "any", "bench"
RIGS = (ANY, BENCH)
"""ANY: every machine and load. BENCH: two cores to itself, the base case (see budgets.toml)."""

_MB = 2.0**20


@dataclass(frozen=True, slots=True)
class Budget:
    """One row. subject: `process:GLOB`, `stream:GLOB`, `run` or `policy` (a run of that command);
    limit: in `unit`, the metric's; rig: class of machine and load for which it holds."""

    subject: str
    metric: str
    unit: str
    limit: float
    rig: str
    reason: str

    def covers(self, subject: str) -> bool:
        """True when `subject`, a plain name of the same kind, is meant by this row."""
        return fnmatchcase(subject, self.subject)


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is found in a run. unit: for people; of: (run, name) -> value, None unknown."""

    unit: str
    of: Callable[[Mapping[str, Any], str], float | None]


def _scaled(value: Any, scale: float) -> float | None:
    return None if value is None else float(value) / scale


def _worst_camera(run: Mapping[str, Any], path: str) -> float | None:
    values = [at_path(camera, path) for camera in run["cameras"].values()]
    known = [float(value) for value in values if value is not None]
    return max(known) if known else None


def _sum_cameras(run: Mapping[str, Any], name: str) -> float:
    return float(sum(camera[name] for camera in run["cameras"].values()))


def _periods(run: Mapping[str, Any]) -> float:
    return float(run["waits"]["start_to_row_time_ms"]) * run["rows"]["fps"] / 1000.0


PROCESS_METRICS: Mapping[str, Metric] = {
    "cores": Metric("cores", lambda run, name: run["cpu"]["cores"].get(name)),
    "pss_mb": Metric("MB", lambda run, name: _scaled(run["memory"]["pss_bytes"].get(name), _MB)),
    "lateness_p99_us": Metric(
        "us", lambda run, name: at_path(run["control"].get(name), "lateness_us.p99")
    ),
    "simulated": Metric("", lambda run, name: None),
}

STREAM_METRICS: Mapping[str, Metric] = {
    "lost": Metric("records", lambda run, name: run["streams"].get(name)),
    "latest": Metric("", lambda run, name: None),
}

RUN_METRICS: Mapping[str, Metric] = {
    "percent_kept_missing": Metric("%", lambda run, _: 100.0 - run["rows"]["percent_kept"]),
    "beyond_drift": Metric("rows", lambda run, _: _sum_cameras(run, "beyond_drift")),
    "unflagged": Metric("rows", lambda run, _: _sum_cameras(run, "unflagged")),
    "start_reply_ms": Metric("ms", lambda run, _: run["waits"]["start_reply_ms"]),
    "start_to_row_time_periods": Metric("periods", lambda run, _: _periods(run)),
    "stop_to_durable_ms": Metric("ms", lambda run, _: run["waits"]["stop_to_durable_ms"]),
    "total_cores": Metric("cores", lambda run, _: run["cpu"]["total_cores"]),
    "tree_pss_mb": Metric("MB", lambda run, _: _scaled(run["memory"]["peak_pss_bytes"], _MB)),
    "skew_error_p50_ms": Metric("ms", lambda run, _: _worst_camera(run, "skew.error_ms.p50")),
    "finish_ms_per_picture": Metric("ms", lambda run, _: finish_ms(run)),
    "statistics_ms_per_picture": Metric(
        "ms", lambda run, _: at_path(run, "against_floors.statistics_ms")
    ),
    "pictures_ratio": Metric(
        "floors", lambda run, _: at_path(run, "against_floors.pictures_ratio")
    ),
    "pipeline_ratio": Metric(
        "floors", lambda run, _: at_path(run, "against_floors.pipeline_ratio")
    ),
    "skew_error_p99_ms": Metric("ms", lambda run, _: _worst_camera(run, "skew.error_ms.p99")),
}


def _worst_of(run: Mapping[str, Any], group: str, path: str) -> float | None:
    values = [at_path(item, path) for item in run[group].values()]
    known = [float(value) for value in values if value is not None]
    return max(known) if known else None


def _policy(path: str, unit: str) -> Metric:
    return Metric(unit, lambda run, _: at_path(run, path))


POLICY_METRICS: Mapping[str, Metric] = {
    "observe_ratio_p50": Metric("floors", lambda run, _: _worst_of(run, "observe", "ratio_p50")),
    "observe_p99_ms": Metric("ms", lambda run, _: _worst_of(run, "observe", "ms.p99")),
    "first_goal_p99_periods": _policy("first_goal.periods.p99", "periods"),
    "interrupted_periods": _policy("interrupted.periods.max", "periods"),
    "hold_late_periods": _policy("frozen.late_periods.max", "periods"),
    "commanded_rms_deg": Metric(
        "deg", lambda run, _: _worst_of(run, "tracking", "commanded_deg.rms")
    ),
    "queue_empty": Metric("times", lambda run, _: _worst_of(run, "tracking", "queue_empty")),
    "lateness_ratio_p50": Metric("", lambda run, _: _worst_of(run, "lateness", "ratio_p50")),
    "lateness_ratio_p99": Metric("", lambda run, _: _worst_of(run, "lateness", "ratio_p99")),
    "gateway_absent_cores": _policy("cpu.absent_cores.gateway", "cores"),
}

METRICS: Mapping[str, Mapping[str, Metric]] = {
    "process": PROCESS_METRICS,
    "stream": STREAM_METRICS,
    "run": RUN_METRICS,
    "policy": POLICY_METRICS,
}
"""Kind of subject -> what can be limited."""


def load_budgets(path: Path = BUDGETS) -> tuple[Budget, ...]:
    """All rows of a budget file. ConfigError names every row that is not one."""
    try:
        listed = tomllib.loads(path.read_text()).get("budget", [])
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            [ConfigProblem(path.name, "", "a readable TOML file", str(error))]
        ) from error
    problems, rows = [], []
    for number, fields in enumerate(listed):
        problem = _problem(fields)
        if problem:
            problems.append(ConfigProblem(f"budget[{number}]", path.name, *problem))
        else:
            rows.append(Budget(**{**fields, "limit": float(fields["limit"])}))
    if problems:
        raise ConfigError(problems)
    return tuple(rows)


def _problem(fields: Mapping[str, Any]) -> tuple[str, str] | None:
    wanted = set(Budget.__dataclass_fields__)
    if set(fields) != wanted:
        return f"exactly {sorted(wanted)}", str(sorted(fields))
    kind = str(fields["subject"]).partition(":")[0]
    if kind not in METRICS:
        return f"a subject of {', '.join(METRICS)}", str(fields["subject"])
    if fields["metric"] not in METRICS[kind]:
        return f"a metric of {', '.join(METRICS[kind])}", str(fields["metric"])
    unit = METRICS[kind][fields["metric"]].unit
    if fields["unit"] != unit:
        return f"the metric's unit, {unit!r}", repr(fields["unit"])
    if fields["rig"] not in RIGS:
        return f"a rig of {', '.join(RIGS)}", str(fields["rig"])
    if not str(fields["reason"]).strip():
        return "a reason", "none"
    return None


POLICIES = ("policy={}", "policy.type=openpi")
"""What makes every robot start a gateway and an adapter as well."""


def subjects_of(robot: RobotConfig) -> tuple[str, ...]:
    """Every process and every stream of a robot, as `process:NAME` and `stream:NAME`."""
    table = process_table(robot)
    processes = [SUPERVISOR, FORKSERVER, *(row.name for row in table)]
    streams: list[str] = []
    for row in table:
        streams += [*row.wants.rings_write, *row.wants.rings_read]
        streams += [*row.wants.cells_write, *row.wants.cells_read, row.status_cell]
    return (
        *(f"process:{name}" for name in processes),
        *(f"stream:{name}" for name in dict.fromkeys(streams)),
    )


def without_row(subjects: Iterable[str], budgets: Iterable[Budget]) -> list[str]:
    """Subjects that no budget row covers; an empty list is what must come out."""
    rows = tuple(budgets)
    return [subject for subject in subjects if not any(row.covers(subject) for row in rows)]


def require_complete(robot: RobotConfig, budgets: Iterable[Budget]) -> None:
    """ConfigError that names every process and stream of `robot` without a row."""
    missing = without_row(subjects_of(robot), budgets)
    if missing:
        raise ConfigError(
            [
                ConfigProblem(subject, BUDGETS.name, "a budget row", "none",
                              "Add a row with metric, limit and reason.")
                for subject in missing
            ]
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judgement:
    """One subject against one row. value: median over the runs; kept: value within limit, None
    when it was not measured."""

    subject: str
    metric: str
    unit: str
    value: float | None
    limit: float
    kept: bool | None
    reason: str

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def judge(
    runs: list[Mapping[str, Any]], subjects: Iterable[str], budgets: Iterable[Budget], *,
    rig: str = BENCH, whole: str = "run",
) -> list[Judgement]:  # fmt: skip
    """Every row that holds for `rig` against every subject it covers, by the median over `runs`.

    whole: the subject that stands for a run as such, by the kind of result: `run` or `policy`.
    """
    named = [*subjects, whole]
    found = []
    for row in budgets:
        if row.rig not in (ANY, rig):
            continue
        kind = row.subject.partition(":")[0]
        metric = METRICS[kind][row.metric]
        for subject in named:
            if row.covers(subject):
                value = _median(metric, runs, subject.partition(":")[2])
                kept = None if value is None else value <= row.limit
                found.append(
                    Judgement(subject, row.metric, metric.unit, value, row.limit, kept, row.reason)
                )
    return found


def _median(metric: Metric, runs: list[Mapping[str, Any]], name: str) -> float | None:
    values = sorted(v for v in (metric.of(run, name) for run in runs) if v is not None)
    if not values:
        return None
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2
