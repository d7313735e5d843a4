import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recd.daemon.service import people
from recd.daemon.service.people import Account
from recd.daemon.service.places import Places
from recd.daemon.service.plan import Plan, Request, make_plan

CONFIG = """
name: so101
cameras:
  front: {source: v4l2, device: /dev/video0}
arms:
  main:
    leader: {port: /dev/serial/by-id/usb-leader, id: lead, calibration: CALIBRATION}
    follower: {port: /dev/ttyACM1, id: follow, calibration: CALIBRATION}
dataset: {root: ROOT}
"""
NOWHERE = "/srv/recd-of-the-tests/so101"
"""A dataset folder that is only written about."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account may enter; pytest's own are closed."""
    made = Path(tempfile.mkdtemp(prefix="recd-service-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def me() -> Account:
    return people.invoker()


@pytest.fixture
def nobody() -> Account:
    found = people.account("nobody")
    assert found is not None, "every Linux has this account"
    return found


@pytest.fixture
def request_for(folder: Path) -> Callable[..., Request]:
    """Requests for an image below `folder`, with programs that everybody may run."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("recd", "recctl", "python"):
        (programs / name).symlink_to("/bin/sh")
    calibration = folder / "calibration.json"
    calibration.write_text("{}")

    def make(*, text: str = CONFIG, root: str = NOWHERE, **changes: Any) -> Request:
        config = folder / "robot.yaml"
        config.write_text(text.replace("CALIBRATION", str(calibration)).replace("ROOT", root))
        asked: dict[str, Any] = {
            "config": str(config), "user": "daemon", "group": "daemon",
            "places": Places(folder / "image"), "bin": str(programs), **changes,
        }  # fmt: skip
        return Request(**asked)

    return make


@pytest.fixture
def plan_for(request_for: Callable[..., Request], me: Account) -> Callable[..., Plan]:
    return lambda **changes: make_plan(request_for(**changes), invoker=me)
