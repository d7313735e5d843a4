"""Damaged, half-copied and hostile datasets given to every command: a clear error or a truthful
result, what is refused is left as it was, and never a traceback (`recctl` of conftest)."""

import json
import random
import shutil
import struct
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from studio import Studio

from recd.config.errors import DatasetError
from recd.daemon.dataset import DatasetStore, check_format, verify_dataset

LENGTHS = (5, 4, 7)
SEEDS = [*range(8), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(8, 64))]
IGNORED = ("lock", "journal")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A dataset with one packed and one fresh part, something in the trash, and all of it copied
    without `.recd` as lerobot would have it."""
    made = {}
    for name in ("ours", "theirs"):
        studio = Studio(tmp_path_factory.mktemp(name))
        store = studio.open()
        for number, length in enumerate(LENGTHS):
            studio.record(store, length, tasks=(f"task {number}",))
            if number == 1:
                store.pack()
        store.undo(studio.record(store, 3).uid)
        studio.close()
        if name == "theirs":
            shutil.rmtree(studio.root / ".recd")
        made[name] = studio.root
    return made


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in IGNORED
    }


def seen(root: Path) -> dict[str, bytes]:
    """What a loader reads."""
    return {name: data for name, data in files(root).items() if not name.startswith(".recd")}


def cut(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size or 1)])


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 8, 64)) if data else 0):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(data))


def zero(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    start = chance.randrange(len(data) or 1)
    end = min(len(data), start + chance.choice((16, 512, 4096)))
    data[start:end] = bytes(end - start)
    path.write_bytes(bytes(data))


def remove(path: Path, chance: random.Random) -> None:
    path.unlink()


def swap(path: Path, chance: random.Random) -> None:
    other = chance.choice([p for p in path.parent.parent.rglob("*") if p.is_file()])
    path.write_bytes(other.read_bytes())


def noise(path: Path, chance: random.Random) -> None:
    path.write_bytes(chance.randbytes(chance.choice((0, 3, 40, 5000))))


def folder(path: Path, chance: random.Random) -> None:
    path.unlink()
    path.mkdir()


def nonsense(path: Path, chance: random.Random) -> None:
    """A JSON file whose values are of other kinds, or a file that becomes JSON."""
    values = [None, [], {}, "x", -1, 1e99, 2**70, True, [[[]]], {"a": None}]
    try:
        told = json.loads(path.read_bytes())
    except ValueError:
        told = chance.choice(values)
    if isinstance(told, dict) and told:
        told[chance.choice(list(told))] = chance.choice(values)
    path.write_text(json.dumps(told))


DAMAGES = (cut, flip, zero, remove, swap, noise, folder, nonsense)
OWN_COMMANDS = (("verify",), ("recover",), ("dataset", "pack"), ("dataset", "info"),
                ("dataset", "trash"))  # fmt: skip


def damaged(root: Path, seed: int) -> list[str]:
    """One to three files of a dataset, damaged by chance; what was done."""
    chance = random.Random(seed)
    done = []
    for _ in range(chance.choice((1, 1, 2, 3))):
        paths = sorted(path for path in root.rglob("*") if path.is_file() and path.name != "lock")
        # Metadata is small and decides everything: it is hit as often as all the rest.
        meta = [path for path in paths if path.suffix in (".json", ".parquet")]
        path, damage = chance.choice(chance.choice((paths, meta))), chance.choice(DAMAGES)
        done.append(f"{damage.__name__} {path.relative_to(root)}")
        damage(path, chance)
    return done


@pytest.mark.parametrize("whose", ["ours", "theirs"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_damaged_dataset_gets_a_clear_error_or_a_truthful_result(
    recorded, tmp_path, recctl, whose, seed
):
    root, dest = tmp_path / "dataset", tmp_path / "new"
    shutil.copytree(recorded[whose], root)
    done = damaged(root, seed)
    before = files(root)
    good = recctl("verify", root).code == 0
    assert files(root) == before, done
    sound = check_format(root).good

    for extra in ((), ("--packed",)):
        said = recctl("dataset", "copy", root, dest, *extra)
        assert said.code in (0, 1), done
        assert (said.code == 1) == bool(said.err)
        assert dest.exists() is (said.code == 0)
        assert files(root) == before, done
        if said.code == 0:
            assert verify_dataset(dest).good, done
        for left in (dest, tmp_path / ".new.copying"):
            shutil.rmtree(left, ignore_errors=True)
    said = recctl("dataset", "merge", recorded["ours"], root, dest)
    assert said.code in (0, 1), done
    assert files(root) == before, done

    for command in OWN_COMMANDS[1:]:
        shown = seen(root)
        said = recctl(*command, root)
        assert said.code in (0, 1, 3), (done, command)
        if said.code == 1 and not said.out:
            assert said.err, (done, command)
            assert seen(root) == shown, (done, command)
        if good and command == ("recover",):
            assert (said.code, seen(root)) == (0, shown), done
        if sound and command == ("dataset", "pack"):
            assert check_format(root).good, done


def opened(studio: Studio) -> DatasetStore | None:
    """A store to record into; None when it was refused in words."""
    try:
        return studio.open()
    except DatasetError as refused:
        if not refused.message:
            raise
    except OSError as refused:
        if not refused.filename:
            raise
    return None


@pytest.mark.parametrize("seed", SEEDS)
def test_recording_is_refused_in_words_or_goes_on_in_a_dataset_that_stays_as_it_was(
    recorded, tmp_path, seed
):
    studio = Studio(tmp_path)
    shutil.copytree(recorded["ours"], studio.root)
    done = damaged(studio.root, 1000 + seed)
    before = seen(studio.root)
    sound = check_format(studio.root).good
    store = opened(studio)
    if store is None:
        assert seen(studio.root) == before, done
        return
    studio.record(store, 3, tasks=("a new one",))
    studio.close()
    assert check_format(studio.root).good or not sound, done
    kept = {name for name in before if name.startswith(("data", "videos"))}
    after = seen(studio.root)
    assert all(after[name] == before[name] for name in kept), done


PARTS = ("data", "videos", "meta/episodes", ".recd/episodes", ".recd/journal",
         "meta/tasks.parquet", "meta/stats.json")  # fmt: skip


@pytest.mark.parametrize("left_out", PARTS)
def test_a_half_copied_dataset_is_named_as_such(recorded, tmp_path, recctl, left_out):
    root = tmp_path / "dataset"
    shutil.copytree(recorded["ours"], root)
    away = root / left_out
    if away.is_dir():
        shutil.rmtree(away)
    else:
        away.unlink()
    before = files(root)
    if left_out != ".recd/journal":
        assert recctl("verify", root).code == 1
    said = recctl("dataset", "copy", root, tmp_path / "new")
    assert (said.code == 0) == (left_out in (".recd/journal", "meta/stats.json"))
    assert said.code == 0 or (said.err and not (tmp_path / "new").exists())
    assert files(root) == before


BOMBS = {
    "parquet that claims much": b"PAR1" + b"\x15" * 64 + struct.pack("<I", 2**31 - 1) + b"PAR1",
    "footer of nothing": b"PAR1" + struct.pack("<I", 0) + b"PAR1",
    "deep nesting": b"PAR1" + b"\x1c" * 4000 + struct.pack("<I", 4000) + b"PAR1",
    "endless number": b"PAR1" + b"\x15" + b"\xff" * 4000,
    "list without end": b"PAR1" + b"\x19\xfc\xff\xff\xff\xff\x0f" * 200,
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("where", ["data/chunk-000/file-000.parquet",
                                   "meta/episodes/chunk-000/file-000.parquet"])  # fmt: skip
def test_files_made_to_harm_are_refused_and_untouched(recorded, tmp_path, recctl, name, where):
    root = tmp_path / "dataset"
    shutil.copytree(recorded["theirs"], root)
    (root / where).write_bytes(BOMBS[name])
    before = seen(root)
    assert recctl("verify", root).code == 1
    for command in (("copy", root, tmp_path / "new"), ("pack", root)):
        assert recctl("dataset", *command).code == 1
    said = recctl("recover", root)
    if where.startswith("data"):  # the third episode has a file of its own
        assert said.code == 3
        assert "lost: episode 0: no rows" in said.out
        assert check_format(root).good
        (kept,) = (root / ".recd/quarantine").iterdir()
        assert (kept / "before" / where).read_bytes() == BOMBS[name]
    elif said.code == 1:
        assert seen(root) == before


def test_a_link_out_of_the_dataset_is_not_followed_for_writing(recorded, tmp_path, recctl):
    root, outside = tmp_path / "dataset", tmp_path / "outside"
    shutil.copytree(recorded["ours"], root)
    (root / "data").rename(outside)
    (root / "data").symlink_to(outside)
    before = files(outside)
    uid = recctl("dataset", "info", root, "--json").json["episodes"][0]["uid"]
    assert recctl("dataset", "delete", root, uid).code == 1
    assert recctl("verify", root).code == 0
    assert files(outside) == before


def test_numbers_that_lie_are_found_and_not_repeated(recorded, tmp_path, recctl):
    root = tmp_path / "dataset"
    shutil.copytree(recorded["theirs"], root)
    path = sorted((root / "meta/episodes").glob("*/*.parquet"))[0]
    table = pq.read_table(path)
    at = table.column_names.index("length")
    lied = [length + 1 for length in table["length"].to_pylist()]
    pq.write_table(table.set_column(at, table.schema.field(at), [lied]), path)
    assert recctl("verify", root).code == 1
    said = recctl("dataset", "copy", root, tmp_path / "new")
    assert said.code == 1
    assert not (tmp_path / "new").exists()
    with DatasetStore.open(root) as store, pytest.raises(DatasetError):
        store.pack()
