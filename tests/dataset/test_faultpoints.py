import os
import subprocess
import sys

import pytest

from recd.daemon import faultpoints
from recd.daemon.faultpoints import InjectedFaultError, parse_faults, watching

PASSES = (
    "from recd.daemon.faultpoints import fault_point\n"
    "for n in range(3): fault_point('here'); print(n, flush=True)"
)


def run(fault: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"RECD_FAULT": fault}
    command = [sys.executable, "-c", PASSES]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)


def test_without_the_variable_passing_a_point_does_nothing():
    if "RECD_FAULT" not in os.environ:
        assert faultpoints.fault_point is faultpoints._pass_by
    assert run("").stdout.split() == ["0", "1", "2"]


def test_kill_acts_at_the_named_point_on_the_nth_pass_only():
    done = run("elsewhere:kill,here:kill:2")
    assert (done.returncode, done.stdout.split()) == (-9, ["0"])


def test_error_is_an_input_output_error():
    point = watching("here:error")
    point("elsewhere")
    with pytest.raises(InjectedFaultError, match="fault point here") as raised:
        point("here")
    assert isinstance(raised.value, OSError)
    point("here")


def test_several_faults_are_read_and_nonsense_is_refused():
    assert parse_faults("a.b:kill,c:pause:3,") == {"a.b": ("kill", 1), "c": ("pause", 3)}
    for text in ("a", "a:melt", "a:kill:x", ":kill"):
        with pytest.raises(ValueError, match="RECD_FAULT"):
            parse_faults(text)


def test_a_point_armed_by_a_file_acts_once_and_in_one_process_only(tmp_path):
    environment = os.environ | {"RECD_FAULT_FOLDER": str(tmp_path)}
    command = [sys.executable, "-c", PASSES]
    faultpoints.arm(tmp_path, "elsewhere", "kill")
    faultpoints.arm(tmp_path, "here", "kill")
    codes = [subprocess.run(command, env=environment, timeout=30).returncode for _ in range(2)]
    assert codes == [-9, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
    with pytest.raises(ValueError, match="melt"):
        faultpoints.arm(tmp_path, "here", "melt")


def test_a_process_that_may_open_no_file_passes_every_point(tmp_path):
    faultpoints.arm(tmp_path, "here", "kill")
    code = (
        "import resource\n"
        "from recd.daemon.faultpoints import fault_point\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))\n"
        "fault_point('here')\n"
    )
    environment = os.environ | {"RECD_FAULT_FOLDER": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, timeout=30)
    assert done.returncode == 0
