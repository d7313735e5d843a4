from pathlib import Path

import pytest

from recd.config.errors import ConfigError
from recd.config.load import load_robot, preset_names, read_source
from recd.config.migrate import (
    CONFIG_VERSION,
    MIGRATIONS,
    Migration,
    Rename,
    migrated,
    renamed,
    version_in,
)
from tests.said import recctl_of

VERSIONS = sorted((Path(__file__).parent / "versions").glob("*.yaml"))

TABLE = (
    *MIGRATIONS,
    Migration(2, "cameras by device", (Rename(("cameras", "*", "device"), "node"),)),
    Migration(3, "dataset", (Rename(("dataset",), "store"), Rename(("store", "root"), "folder"))),
)
"""What later versions might have done."""

OLD = """\
# top
name: lab # here
cameras:
  front: {source: v4l2, device: /dev/video0}
  wrist:
    device: /dev/video2 # the small one
dataset: {root: /data}
"""


@pytest.fixture
def recctl(monkeypatch, capsys):
    return recctl_of(monkeypatch, capsys)


def test_the_table_has_one_row_for_every_version_up_to_todays():
    assert [migration.to for migration in MIGRATIONS] == list(range(1, CONFIG_VERSION + 1))


@pytest.mark.parametrize("file", VERSIONS, ids=lambda file: file.stem)
def test_a_file_of_every_released_version_works_as_it_is_and_migrated_alike(file, tmp_path):
    new = tmp_path / "robot.yaml"
    text = file.read_text()
    new.write_text(migrated(text, version_in(text, "old")))
    as_it_is = load_robot(file, check_machine=False)
    assert load_robot(new, check_machine=False) == as_it_is
    assert as_it_is.version == CONFIG_VERSION
    assert version_in(new.read_text(), "new") == CONFIG_VERSION


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_is_of_todays_version(preset):
    assert read_source(preset).data["version"] == CONFIG_VERSION


def test_keys_are_renamed_where_they_stand_and_all_else_stays():
    assert (
        migrated(OLD, 0, table=TABLE)
        == """\
# top
version: 3
name: lab # here
cameras:
  front: {source: v4l2, node: /dev/video0}
  wrist:
    node: /dev/video2 # the small one
store: {folder: /data}
"""
    )


def test_only_what_changed_after_a_files_version_is_changed():
    told = migrated(f"version: 2 # mine\n{OLD}", 2, table=TABLE)
    assert told.startswith("version: 3 # mine\n")
    assert "device: /dev/video0" in told
    assert "store: {folder: /data}" in told
    assert migrated(told, 3, table=TABLE) == told


def test_an_older_file_that_is_loaded_keeps_every_key_on_its_line():
    lines = renamed(OLD, 0, table=TABLE).splitlines()
    assert len(lines) == len(OLD.splitlines())
    assert lines[5] == "    node: /dev/video2 # the small one"


@pytest.mark.parametrize(
    ("said", "expected", "mend"),
    [("2", "at most 1", "newer recd"), ("99", "at most 1", "newer recd"),
     ("0", "expected 1", "recd 0.1"), ("new", "expected 1", "recd 0.1"),
     ("{a: 1}", "expected 1", "recd 0.1")],
)  # fmt: skip
def test_a_file_of_a_newer_recd_or_without_a_number_is_refused_with_its_line(said, expected, mend):
    with pytest.raises(ConfigError) as refused:
        version_in(f"# top\nname: x\nversion: {said}\n", "robot.yaml")
    (told,) = map(str, refused.value.problems)
    assert "(robot.yaml:3)" in told
    assert expected in told
    assert mend in told


def test_recctl_shows_the_difference_and_touches_nothing(recctl, tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text(VERSIONS[0].read_text())
    said = recctl("config", "migrate", str(file))
    assert said.code == 0
    assert "\n+version: 1\n" in said.out
    assert "--write" in said.out
    assert file.read_text() == VERSIONS[0].read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["robot.yaml"]


def test_recctl_writes_the_new_file_keeps_the_old_one_and_the_mode(recctl, tmp_path):
    file, link = tmp_path / "robot.yaml", tmp_path / "link.yaml"
    file.write_text(VERSIONS[0].read_text())
    file.chmod(0o640)
    link.symlink_to(file)
    told = recctl("config", "migrate", "--write", str(link), "--json").json
    assert (told["from"], told["to"], told["written"]) == (0, 1, True)
    assert Path(told["backup"]).read_text() == VERSIONS[0].read_text()
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    again = recctl("config", "migrate", "--write", str(link), "--json").json
    assert (again["changed"], again["written"]) == (False, False)
    assert len(list(tmp_path.iterdir())) == 3


def test_recctl_never_writes_over_a_kept_file_nor_makes_one_that_does_not_work(recctl, tmp_path):
    file = tmp_path / "robot.yaml"
    kept = tmp_path / "robot.yaml.version0"
    file.write_text(VERSIONS[0].read_text())
    kept.write_text("mine")
    said = recctl("config", "migrate", "--write", str(file))
    assert (said.code, kept.read_text()) == (1, "mine")
    assert "is there already" in said.err
    kept.unlink()
    broken = VERSIONS[0].read_text().replace("rate_hz: 200", "rate_hz: fast")
    file.write_text(broken)
    said = recctl("config", "migrate", "--write", str(file))
    assert said.code == 1
    assert "arms.main.rate_hz" in said.err
    assert file.read_text() == broken
    assert not kept.exists()
