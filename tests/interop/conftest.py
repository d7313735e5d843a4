"""Fixtures of the interop tests: lerobot's side, a demo dataset, the tally, the closing report.

RECD_LEROBOT_PYTHON: lerobot's interpreter (tests/interop/run sets it). RECD_INTEROP_REPORT: where
the report goes; without it only to the terminal.
"""

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
for folder in (HERE, HERE.parent / "dataset"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from lerobot_side import Lerobot, lerobot, plugin_installed  # noqa: E402
from recorders import Rig, lerobot_records, recctl, recd_records, simulated_rig  # noqa: E402
from tally import Tally  # noqa: E402

from recd.daemon.dataset.rules import RULES, Effect  # noqa: E402
from tests.rig import until  # noqa: E402

TALLY = pytest.StashKey[Tally]()
POSE = (0.0, -85.0, 70.0, 40.0, 0.0, 5.0)
"""Where the tiny policy wants the arm, in dataset units."""
NOTES = {name for name, rule in RULES.items() if rule.effect is Effect.NOTE}
Whole = Callable[..., None]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Tally()


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    return pytestconfig.stash[TALLY]


@pytest.fixture(scope="session")
def side(tmp_path_factory: pytest.TempPathFactory, tally: Tally) -> Iterator[Lerobot]:
    python = os.environ.get("RECD_LEROBOT_PYTHON")
    assert python, "RECD_LEROBOT_PYTHON names no interpreter: run tests/interop/run"
    with lerobot(Path(python), tmp_path_factory.mktemp("lerobot")) as started:
        tally.lerobot = started.ask("about")
        yield started


@pytest.fixture(scope="session")
def plugin(side: Lerobot, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables that give lerobot's programs recd's plugin, installed beside its environment."""
    return plugin_installed(side, tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="session")
def act(side: Lerobot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ACT, saved, whose actions lie around one pose."""
    folder = tmp_path_factory.mktemp("act")
    side.ask("tiny_act", folder=folder, size=(128, 96), pose=POSE)
    return folder


@pytest.fixture(scope="session")
def policy_server(side: Lerobot, plugin: dict[str, str]) -> Iterator[str]:
    """lerobot's own PolicyServer; its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["lerobot.async_inference.policy_server", "--host=127.0.0.1", f"--port={port}"]
    with side.running(command, variables=plugin, name="policy_server") as server:
        until(lambda: server.has_said("PolicyServer started"), "the policy server", 120)
        until(lambda: _listens(port), "its port")
        yield f"127.0.0.1:{port}"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session", autouse=True)
def runtime_folder() -> Iterator[Path]:
    """Daemons of this run meet no other; the path is short, as sockets need it."""
    with tempfile.TemporaryDirectory(prefix="ri-") as folder:
        before = os.environ.get("RECD_RUNTIME_DIR")
        os.environ["RECD_RUNTIME_DIR"] = folder
        yield Path(folder)
        if before is None:
            del os.environ["RECD_RUNTIME_DIR"]
        else:
            os.environ["RECD_RUNTIME_DIR"] = before


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory):
    with simulated_rig(tmp_path_factory.mktemp("rig")) as running:
        yield running


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, tally: Tally) -> Path:
    """What `make demo` leaves: three episodes, full size, none of them edited."""
    tally.add("recd_sessions")
    return recd_records(tmp_path_factory.mktemp("demo"), episodes=3, episode_s=4, overrides=())


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory, tally: Tally) -> Path:
    """Three episodes recorded by recd."""
    tally.add("recd_sessions")
    return recd_records(tmp_path_factory.mktemp("fresh"), episodes=3, episode_s=2)


@pytest.fixture(scope="session")
def of_lerobot(
    side: Lerobot, rig: Rig, tmp_path_factory: pytest.TempPathFactory, tally: Tally
) -> Path:
    """Two episodes recorded by lerobot-record."""
    tally.add("lerobot_sessions")
    root = tmp_path_factory.mktemp("of_lerobot") / "dataset"
    return lerobot_records(side, rig, root, episodes=2, episode_s=1, resume=False)


@pytest.fixture(scope="session")
def resumed(
    fresh: Path, side: Lerobot, rig: Rig, tmp_path_factory: pytest.TempPathFactory, tally: Tally
) -> Path:
    """`fresh`, continued by lerobot-record: two episodes files."""
    tally.add("lerobot_sessions")
    tally.add("continued")
    root = tmp_path_factory.mktemp("resumed") / "dataset"
    shutil.copytree(fresh, root)
    return lerobot_records(side, rig, root, episodes=2, episode_s=1, resume=True)


@pytest.fixture(scope="session")
def packed(resumed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`resumed`, its files joined by recctl."""
    root = tmp_path_factory.mktemp("packed") / "dataset"
    shutil.copytree(resumed, root)
    assert recctl("dataset", "pack", root)["changed"]
    return root


@pytest.fixture(scope="session")
def whole(side: Lerobot, tally: Tally) -> Whole:
    """Asks both at once: `recctl verify` and lerobot must read every row and every picture.

    stale_numbers: only those that lerobot's merge leaves behind are to be found, and are.
    """

    def ask(root: Path, *, episodes: int, stale_numbers: bool = False) -> None:
        with ThreadPoolExecutor(1) as beside:
            verified = beside.submit(recctl, "verify", root, check=False)
            theirs = side.ask("check", root=root, stale_numbers=stale_numbers)
            ours = verified.result()
        assert theirs["good"], f"{theirs['error']} in {theirs['where']}"
        broken = {"episodes.own_file"} if stale_numbers else set()
        assert set(ours["counts"]) - NOTES == broken, ours["findings"]
        assert ours["good"] is not stale_numbers
        assert ours["episodes"] == theirs["episodes"] == episodes
        assert ours["rows"] == theirs["rows"]
        assert ours["pictures_decoded"] == ours["rows"] * ours["cameras"]
        decoders = len(tally.lerobot["decoders"])
        assert theirs["pictures"] == ours["pictures_decoded"] * decoders
        tally.add("datasets_read")
        tally.add("datasets_verified")
        tally.add("pictures_decoded", theirs["pictures"])

    return ask


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """A dataset folder of one's own to change, below a folder of its own."""

    def make(root: Path) -> Path:
        return Path(shutil.copytree(root, tmp_path / "copy" / "dataset"))

    return make


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    tally = config.stash[TALLY]
    if not tally.lerobot:
        return
    stats = terminalreporter.stats
    outcomes = {name: len(stats.get(name, [])) for name in ("passed", "failed", "error", "skipped")}
    lines = tally.lines(outcomes)
    terminalreporter.section("what this run has shown")
    terminalreporter.write_line("\n".join(lines))
    if wanted := os.environ.get("RECD_INTEROP_REPORT"):
        head = ["# recd and the real lerobot", "", "Written by `tests/interop/run`.", ""]
        Path(wanted).write_text("\n".join([*head, *lines]) + "\n")
