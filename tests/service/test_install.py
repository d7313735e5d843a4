"""Installing into an image, and what is refused before anything is touched."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from recd.config.errors import RecdError
from recd.config.load import load_robot
from recd.daemon.service import people
from recd.daemon.service.install import check_privileged, install, uninstall
from recd.daemon.service.people import Account
from recd.daemon.service.places import Places
from recd.daemon.service.plan import Plan, resolved
from recd.daemon.service.steps import Run, ShareFolder

PlanFor = Callable[..., Plan]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming other accounts needs root")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def carry_out(plan: Plan) -> list[str]:
    said: list[str] = []
    install(plan, say=said.append)
    return said


def test_a_plan_touches_nothing_and_a_second_installation_neither(
    plan_for: PlanFor, folder: Path
) -> None:
    before = tree(folder)
    plan = plan_for()
    assert {**tree(folder), "robot.yaml": b""} == {**before, "robot.yaml": b""}
    assert len(carry_out(plan)) == 7
    installed = tree(folder)
    assert carry_out(plan_for()) == []
    assert tree(folder) == installed


def test_the_installed_configuration_means_the_same_wherever_it_is_read(
    plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/srv")
    plan = plan_for(root="recd-of-the-tests/../data")
    carry_out(plan)
    monkeypatch.chdir("/")
    robot = load_robot(plan.files.config)
    assert str(robot.dataset_root) == "/srv/data"
    assert plan.files.config.read_text().startswith("# Made by 'recctl service install' from ")
    assert set(yaml.safe_load(plan.files.config.read_text())) == {
        "name", "cameras", "arms", "dataset",
    }  # fmt: skip


def test_calibration_is_found_as_the_invoking_user(tmp_path: Path, folder: Path) -> None:
    other = Account("ann", os.geteuid() + 1, 0, (), str(tmp_path))
    config = folder / "robot.yaml"
    config.write_text(
        "name: a\narms: {main: {follower: {port: /dev/ttyACM0, id: left_arm}}}\n"
        "dataset: {root: ~/data}\n"
    )
    robot, _, _ = resolved(str(config), (), invoker=other)
    assert robot.arms["main"].follower.calibration == (
        f"{tmp_path}/.cache/huggingface/lerobot/calibration/robots/so_follower/left_arm.json"
    )
    assert str(robot.dataset_root) == f"{tmp_path}/data"


def test_uninstall_removes_what_was_installed_and_only_that(
    plan_for: PlanFor, folder: Path
) -> None:
    places = Places(folder / "image")
    foreign = folder / "image" / "etc/systemd/system/other.service"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("[Unit]\n")
    plan = plan_for()
    carry_out(plan)
    plan.files.config.write_text("# mine now\n")
    left = uninstall(places, "recd.service", say=lambda _: None)
    assert left == [plan.files.config]
    found = {p for p in (folder / "image").rglob("*") if p.is_file()}
    assert found == {foreign, plan.files.config}


def test_uninstalling_one_of_several_leaves_what_the_others_need(
    plan_for: PlanFor, folder: Path
) -> None:
    left = plan_for(several=True, overrides=("name=left_bench",))
    right = plan_for(several=True, overrides=("name=right_bench",))
    carry_out(left)
    carry_out(right)
    places = Places(folder / "image")
    uninstall(places, "recd@left_bench.service", say=lambda _: None)
    assert right.files.file.exists()
    assert right.files.rules.exists()
    assert not left.files.config.exists()
    uninstall(places, "recd@right_bench.service", say=lambda _: None)
    assert tree(folder / "image") == {}


def test_what_uninstall_would_do_can_be_asked_without_doing_it(
    plan_for: PlanFor, folder: Path
) -> None:
    carry_out(plan_for())
    before, said = tree(folder), []
    uninstall(Places(folder / "image"), "recd.service", say=said.append, pretend=True)
    assert len(said) == 7
    assert tree(folder) == before


def test_a_service_that_was_not_installed_is_not_uninstalled(folder: Path) -> None:
    with pytest.raises(RecdError, match=r"recd.service: not installed by recd \(installed: none"):
        uninstall(Places(folder / "image"), "recd.service", say=lambda _: None)


def test_a_damaged_list_of_what_was_installed_removes_nothing(
    plan_for: PlanFor, folder: Path
) -> None:
    plan = plan_for()
    carry_out(plan)
    plan.files.ledger.write_text(json.dumps(["/etc/passwd"]))
    before = tree(folder)
    with pytest.raises(RecdError, match="cannot be read"):
        uninstall(Places(folder / "image"), "recd.service", say=lambda _: None)
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"user": "no-such-account"}, "--user: expected an account of this computer"),
        ({"user": "root"}, "--user: expected an account without privileges"),
        ({"bin": "/nowhere/bin"}, "/nowhere/bin/recd: expected a program of recd, found nothing"),
        ({"root": "/tmp/data"}, "dataset.root: expected a folder that stays, found /tmp/data"),
        ({"root": "/etc/hostname"}, "dataset.root: expected a folder, found a file"),
        ({"overrides": ("arms.main.follower.calibration=/nowhere.json",)},
         "arms.main.follower.calibration: expected a calibration file, found none"),
        ({"overrides": ("cameras.front.fps=0",)}, "cameras.front.fps"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_is_touched(
    plan_for: PlanFor, folder: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(RecdError) as refused:
        plan_for(**changes)
    assert told in str(refused.value)
    assert not (folder / "image").exists()


def test_a_second_robot_does_not_take_the_service_of_the_first(
    plan_for: PlanFor, folder: Path
) -> None:
    carry_out(plan_for())
    installed = tree(folder / "image")
    with pytest.raises(RecdError, match="already the service of another robot") as refused:
        plan_for(overrides=("name=other",))
    assert "--several" in refused.value.mend
    assert tree(folder / "image") == installed
    carry_out(plan_for(overrides=("name=other",), several=True))


def test_needrestart_is_told_to_leave_the_daemon_alone_where_it_is_installed(
    plan_for: PlanFor, folder: Path
) -> None:
    carry_out(plan_for())
    told = folder / "image/etc/needrestart/conf.d/recd.conf"
    assert not told.exists()
    told.parent.mkdir(parents=True)
    assert carry_out(plan_for()) == [f"write {told}"]
    assert "= 0;" in told.read_text()


def test_a_file_of_somebody_else_is_not_overwritten(plan_for: PlanFor, folder: Path) -> None:
    unit = folder / "image/etc/systemd/system/recd.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Unit]\nDescription=mine\n")
    with pytest.raises(RecdError, match="found one that recd did not install"):
        plan_for()
    assert unit.read_text() == "[Unit]\nDescription=mine\n"


def test_a_live_system_without_privilege_or_without_systemd_is_refused() -> None:
    if os.geteuid() == 0 and Path("/run/systemd/system").is_dir():
        pytest.skip("this is a live system and we are root: nothing to refuse")
    with pytest.raises(RecdError, match="nothing was changed"):
        check_privileged(Places())
    check_privileged(Places(Path("/somewhere")))


@as_root
def test_a_calibration_or_dataset_that_the_account_cannot_reach_names_the_closed_folder(
    plan_for: PlanFor, folder: Path
) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    (closed / "calibration.json").write_text("{}")
    with pytest.raises(RecdError) as calibration:
        plan_for(overrides=(f"arms.main.leader.calibration={closed}/calibration.json",))
    assert f"({closed} is closed to it)" in calibration.value.message
    home = Path("/root")
    assert home.is_dir()
    if stat.S_IMODE(home.stat().st_mode) & 0o011:
        pytest.skip("/root is open here")
    with pytest.raises(RecdError) as dataset:
        plan_for(root="/root/recd")
    assert dataset.value.message == (
        "dataset.root: the account daemon does not get to /root/recd: /root is closed"
    )
    assert "--user" in dataset.value.mend


@as_root
def test_the_kernel_is_asked_what_an_account_may_do(folder: Path, nobody: Account) -> None:
    mine = folder / "mine"
    mine.write_text("x")
    mine.chmod(0o640)
    assert not people.may(nobody, mine, "read")
    os.chown(mine, -1, nobody.gid)
    assert people.may(nobody, mine, "read")
    assert not people.may(nobody, mine, "write")
    assert os.geteuid() == 0
    future = people.future("recd", "no-such-group")
    assert not people.may(future, mine, "read")


@as_root
def test_a_shared_folder_is_writable_for_user_and_group_and_links_are_left_alone(
    folder: Path, nobody: Account
) -> None:
    root = folder / "dataset"
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text("{}")
    outside = folder / "outside"
    outside.write_text("not yours")
    outside.chmod(0o600)
    (root / "link").symlink_to(outside)
    share = ShareFolder(root, "nobody", "daemon", "root")
    assert not share.done()
    share.do()
    assert share.done()
    member = people.with_groups(nobody, ("daemon",))
    assert people.may(member, root, "read", "write", "enter")
    assert people.may(member, root / "meta" / "info.json", "read", "write")
    assert stat.S_IMODE((root / "meta").stat().st_mode) & stat.S_ISGID
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600


@as_root
def test_files_of_a_third_account_in_the_dataset_are_refused(folder: Path, nobody: Account) -> None:
    root = folder / "dataset"
    root.mkdir()
    foreign = root / "foreign"
    foreign.write_text("x")
    os.chown(foreign, nobody.uid, -1)
    assert list(ShareFolder(root, "daemon", "daemon", "root").strangers()) == [foreign]


def test_a_manager_that_this_computer_does_not_have_is_no_error_if_it_may_be_missing() -> None:
    Run(("no-such-program", "--reload"), optional=True).do()
    with pytest.raises(RecdError, match="no-such-program"):
        Run(("no-such-program", "--reload")).do()
