"""The templates, filled in as installed, under systemd's own eyes where there is a systemd."""

import configparser
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from recd.daemon.service import units
from recd.daemon.service.install import install
from recd.daemon.service.plan import Plan
from recd.daemon.supervisor.ending import FINISH_NS
from recd.daemon.supervisor.fleet import ARM_ALIVE_NS
from recd.daemon.supervisor.processes import MANNERS
from recd.shm.aot import COMPILE_TIMEOUT_S
from recd.shm.clock import NS_PER_S

ROOT = Path(__file__).parents[2]
EXPOSURE_AT_MOST = 4.0

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)
PlanFor = Callable[..., Plan]


@pytest.fixture(params=[False, True], ids=["recd.service", "recd@so101.service"])
def unit(request: pytest.FixtureRequest, plan_for: PlanFor) -> Path:
    """An installed unit file with its drop-in."""
    plan = plan_for(several=request.param)
    install(plan, say=lambda _: None)
    return plan.files.file


def service(unit: Path) -> dict[str, str]:
    """[Service] of a unit; of a key given several times the last."""
    parsed = configparser.RawConfigParser(strict=False)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(unit.read_text())
    return dict(parsed["Service"])


def test_the_only_privilege_is_to_raise_kernel_workers(unit: Path) -> None:
    capabilities = {service(unit)[f"{name}"] for name in
                    ("CapabilityBoundingSet", "AmbientCapabilities")}  # fmt: skip
    assert capabilities == {"CAP_SYS_NICE"}


def seconds(text: str) -> int:
    return int(text)


@needs_analyze
def test_systemd_finds_nothing_to_object_to(unit: Path) -> None:
    said = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60
    )
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


@needs_analyze
def test_the_exposure_stays_low(unit: Path) -> None:
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager",
         f"--threshold={EXPOSURE_AT_MOST * 10:.0f}", str(unit)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    found = re.search(r"exposure level for .*: ([\d.]+)", said.stdout)
    assert found is not None, said.stderr
    assert float(found[1]) <= EXPOSURE_AT_MOST
    assert said.returncode == 0


def test_nothing_that_breaks_recd_is_switched_on(unit: Path) -> None:
    harmful = {
        "MemoryDenyWriteExecute", "RestrictRealtime", "PrivateDevices", "PrivateNetwork",
        "ProcSubset", "PrivateUsers",
    }  # fmt: skip
    assert harmful & set(service(unit)) == set()


def test_a_stop_may_take_as_long_as_the_longest_drain(unit: Path) -> None:
    """Last episode, then each group of workers, each with its SIGKILL."""
    groups = {manners.stop for manners in MANNERS.values()}
    longest = sum(
        max(m.stop_after_ns for m in MANNERS.values() if m.stop == group) + 2 * NS_PER_S
        for group in groups
    )
    assert seconds(service(unit)["TimeoutStopSec"]) * NS_PER_S > FINISH_NS + longest


def test_a_start_may_take_as_long_as_compiling_the_kernels(unit: Path) -> None:
    assert seconds(service(unit)["TimeoutStartSec"]) > COMPILE_TIMEOUT_S


def test_the_supervisor_gets_to_kill_a_frozen_arm_before_the_watchdog_kills_everything(
    unit: Path,
) -> None:
    watchdog_ns = seconds(service(unit)["WatchdogSec"]) * NS_PER_S
    starving_ns = MANNERS["arm"].stale_after_ns - ARM_ALIVE_NS + NS_PER_S
    assert watchdog_ns - watchdog_ns // 4 > starving_ns


def test_one_template_serves_one_robot_and_several() -> None:
    one, several = ROOT / "systemd" / "recd.service", ROOT / "systemd" / "recd@.service"
    assert several.resolve() == one
    assert units.template("recd@.service") == one.read_text()


def test_each_robot_of_several_has_folders_of_its_own(plan_for: PlanFor) -> None:
    plan = plan_for(several=True)
    install(plan, say=lambda _: None)
    text = plan.files.file.read_text()
    assert "RuntimeDirectory=recd/%i\n" in text
    assert " run /etc/recd/%i.yaml\n" in text
    assert "so101" not in text
    assert "/srv/recd-of-the-tests/so101" in plan.files.drop_in.read_text()


def test_a_word_that_no_fact_fills_is_an_error() -> None:
    facts = units.UnitFacts("a", "b", "c", "/d")
    with pytest.raises(KeyError):
        units.render("User=@usr@", facts)
    assert units.render("SystemCallFilter=@system-service\n@user@@group@", facts) == (
        "SystemCallFilter=@system-service\nbc"
    )


def test_paths_survive_systemds_quoting() -> None:
    assert units.quoted('/data/50% "best" of') == '"/data/50%% \\"best\\" of"'


RULE = re.compile(
    r'([A-Z]+(\{[^}"]+\})?(==|!=|=|\+=|:=)"[^"]*"(, |$))+'
)  # fmt: skip


@pytest.mark.parametrize("file", ["rules", "plug_rules"])
def test_udev_rules_are_well_formed_and_complete(plan_for: PlanFor, file: str) -> None:
    plan = plan_for()
    install(plan, say=lambda _: None)
    lines = [
        line for line in getattr(plan.files, file).read_text().splitlines()
        if line and not line.startswith("#")
    ]  # fmt: skip
    assert lines
    assert [line for line in lines if not RULE.fullmatch(line)] == []


def test_the_plug_of_each_bus_starts_the_service_by_the_name_the_configuration_gives(
    plan_for: PlanFor,
) -> None:
    plan = plan_for(several=True)
    install(plan, say=lambda _: None)
    rules = [line for line in plan.files.plug_rules.read_text().splitlines() if "==" in line]
    assert ['SYMLINK=="serial/by-id/usb-leader"' in rules[0], 'KERNEL=="ttyACM1"' in rules[1]] == [
        True, True,
    ]  # fmt: skip
    assert all('ENV{SYSTEMD_WANTS}+="recd@so101.service"' in rule for rule in rules)


def test_adapters_answer_within_a_millisecond_and_belong_to_the_serial_group(
    plan_for: PlanFor,
) -> None:
    plan = plan_for()
    install(plan, say=lambda _: None)
    rules = plan.files.rules.read_text()
    assert 'DRIVER=="ftdi_sio", ATTR{latency_timer}="1"' in rules
    assert re.search('GROUP="(dialout|uucp)", MODE="0660", ENV{ID_MM_DEVICE_IGNORE}="1"', rules)
