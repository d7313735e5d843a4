import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recd.config.errors import RecdError
from recd.daemon.align.cameras import KERNELS as ALIGN_KERNELS
from recd.daemon.arms.tickcode import KERNELS as ARM_KERNELS
from recd.daemon.pixels.passes import KERNELS as PIXEL_KERNELS
from recd.shm import aot, aot_compile
from recd.shm.handle import KERNELS as SHM_KERNELS

SOURCE = """
from recd.shm.aot import Kernel

def weighted(x, w, n):
    total = 0.0
    for i in range(n):
        total += x[i] * w[i]
    return total

def first_above(x, n, limit):
    for i in range(n):
        if x[i] > limit:
            return i
    return -1

AOT = {
    "weighted": Kernel(weighted, ("float32*", "float64*", "int64"), "float64", releases_gil=True),
    "first_above": Kernel(first_above, ("int64*", "int64", "int64")),
}
"""


def half(x):
    return x * 0.3


def risky(x):
    if x > 3:
        raise ValueError("no")
    return x


def sine(x):
    return math.sin(x)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    (tmp_path / "code").mkdir()
    return tmp_path


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the module `sums` and a cache that has its machine code."""
    top = tmp_path_factory.mktemp("sums")
    (top / "code").mkdir()
    (top / "code" / "sums.py").write_text(SOURCE)
    code = "from recd.shm import aot; aot.load('sums')"
    subprocess.run([sys.executable, "-c", code], env=_environment(top), check=True)
    return top


def _environment(top: Path) -> dict[str, str]:
    path = os.pathsep.join([str(top / "code"), *filter(None, sys.path)])
    return {**os.environ, "RECD_CACHE_DIR": str(top / "cache"), "PYTHONPATH": path}


def _load(module: str = "sums") -> aot.Kernels:
    return aot.load.__wrapped__(module)


def _works(kernels: aot.Kernels) -> bool:
    x, w = np.arange(5, dtype="f4"), np.full(5, 0.5)
    k = np.array([1, 5, 9])
    return (
        kernels["weighted"](x.ctypes.data, w.ctypes.data, 5) == 5.0
        and kernels["first_above"](k.ctypes.data, 3, 4) == 1
        and kernels["first_above"](k.ctypes.data, 3, 10) == -1
    )


def _copied(compiled: Path, folder: Path) -> Path:
    shutil.copytree(compiled, folder, dirs_exist_ok=True)
    (file,) = (folder / "cache").glob("*.kernels")
    return file


def test_cached_kernels_are_mapped_as_code_that_nobody_can_write(compiled: Path, folder: Path):
    file = _copied(compiled, folder)
    before = file.stat()
    kernels = _load()
    assert _works(kernels)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    with open("/proc/self/maps") as maps:
        (line,) = [line for line in maps if str(file) in line]
    assert line.split()[1] == "r-xs"


DAMAGES = {
    "byte of code": lambda content: content[: aot.HEADER_BYTES + 5] + b"?" + content[5000:],
    "byte of header": lambda content: content[:20] + b"?" + content[21:],
    "length of header": lambda content: content[:8] + b"\xff\xff\xff\xff" + content[12:],
    "cut": lambda content: content[:-64],
    "header only": lambda content: content[: aot.HEADER_BYTES],
    "empty": lambda content: b"",
    "text": lambda content: b"x" * 9000,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_cache_file_is_never_run(compiled: Path, folder: Path, damage: str):
    file = _copied(compiled, folder)
    assert aot.read_cache(file) is not None
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    assert aot.read_cache(file) is None


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_cache_file_that_others_can_change_is_never_run(compiled: Path, folder: Path, mode: int):
    file = _copied(compiled, folder)
    file.chmod(mode)
    assert aot.read_cache(file) is None


def test_damaged_cache_file_is_replaced(compiled: Path, folder: Path):
    file = _copied(compiled, folder)
    file.write_bytes(file.read_bytes()[:-1])
    assert _works(_load())
    assert file.stat().st_mode & 0o777 == 0o600
    assert not list((folder / "cache").glob("*.part"))


def test_edited_source_is_not_served_from_the_cache(compiled: Path, folder: Path):
    file = _copied(compiled, folder)
    assert aot.source_key("sums") in file.name
    (folder / "code" / "sums.py").write_text(SOURCE.replace("return -1", "return -7"))
    assert aot.source_key("sums") not in file.name


def test_edited_neighbour_counts_as_an_edit(compiled: Path, folder: Path):
    _copied(compiled, folder)
    before = aot.source_key("sums")
    (folder / "code" / "constants.py").write_text("LIMIT = 3")
    assert aot.source_key("sums") != before


def test_processes_that_start_together_compile_once(folder: Path):
    (folder / "code" / "sums.py").write_text(SOURCE)
    code = (
        "import sys, os; from recd.shm import aot; file = aot.load('sums').file;"
        "print(os.stat(file).st_ino, 'numba' in sys.modules)"
    )
    together = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=_environment(folder),
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    told = {process.communicate(timeout=100)[0] for process in together}
    assert [process.returncode for process in together] == [0] * 4
    assert len(told) == 1
    assert told.pop().split()[1] == "False"
    assert len(list((folder / "cache").glob("sums-*"))) == 1


@pytest.mark.parametrize("function", [half, risky, sine])
def test_kernel_that_needs_more_than_its_code_is_refused(function: Callable[..., Any]):
    name = function.__name__
    with pytest.raises(aot_compile.KernelRefusedError, match=f"kernel {name}: needs"):
        aot_compile.machine_code(name, aot.Kernel(function, ("float64",), "float64"))


def test_refused_kernel_is_told_to_the_operator_and_leaves_nothing(folder: Path):
    (folder / "code" / "refused.py").write_text(
        "from recd.shm.aot import Kernel\n"
        "def half(x):\n    return x * 0.3\n"
        "AOT = {'half': Kernel(half, ('float64',), 'float64')}\n"
    )
    with pytest.raises(RecdError, match="kernel half: needs") as refused:
        _load("refused")
    assert "aot_compile" in refused.value.mend
    assert [path.name for path in (folder / "cache").iterdir()] == [".lock"]


def test_unusable_cache_folder_is_named_with_the_mend(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    (folder / "code" / "sums.py").write_text(SOURCE)
    (folder / "cache").write_text("in the way")
    with pytest.raises(RecdError, match=r"kernel cache folder .*cache: ") as refused:
        _load()
    assert "RECD_CACHE_DIR" in refused.value.mend


def test_cache_folder_is_chosen_in_the_stated_order(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/h")
    for name in ("RECD_CACHE_DIR", "CACHE_DIRECTORY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    chosen = [str(aot.cache_dir())]
    for name, value in (
        ("XDG_CACHE_HOME", "/x"),
        ("CACHE_DIRECTORY", "/var/cache/recd:/other"),
        ("RECD_CACHE_DIR", "/r"),
    ):
        monkeypatch.setenv(name, value)
        chosen.append(str(aot.cache_dir()))
    assert chosen == ["/h/.cache/recd", "/x/recd", "/var/cache/recd", "/r"]


def test_old_compilations_are_forgotten_and_others_kept(tmp_path: Path):
    for i in range(20):
        old = tmp_path / f"sums-{i:02}.kernels"
        old.write_bytes(b"old")
        os.utime(old, (100 - i, 100 - i))
    (tmp_path / "other-00.kernels").write_bytes(b"other")
    aot.forget_old("sums", tmp_path)
    kept = sorted(path.name for path in tmp_path.iterdir())
    newest = [f"sums-{i:02}.kernels" for i in range(aot.KEEP_FILES)]
    assert kept == ["other-00.kernels", *newest]


def test_process_that_uses_rings_and_cells_does_not_import_numba(tmp_path: Path):
    code = """
import sys
import numpy as np
from recd.shm import *
segment = create_ring(RingSpec("r", "frame", 2, 10))
reader = RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP)
RingWriter(segment).write(b"x", t_capture_ns=0, t_arrival_ns=0)
assert reader.take().intact()
CellWriter(create_cell("c", np.dtype("f8"))).publish()
assert not {"numba", "llvmlite"} & set(sys.modules)
"""
    aot.load("recd.shm.kernels")
    subprocess.run([sys.executable, "-c", code], check=True)


KERNEL_MODULES = (SHM_KERNELS, ARM_KERNELS, ALIGN_KERNELS, PIXEL_KERNELS)


@pytest.mark.parametrize("processor", ["aarch64-unknown-linux-gnu", "x86_64-unknown-linux-gnu"])
def test_kernels_of_every_module_are_leaf_code_on_both_processors(processor):
    code = (
        "import importlib, sys\n"
        "from recd.shm import aot_compile as c\n"
        "machine = c.target_machine(sys.argv[1])\n"
        "for module in sys.argv[2:]:\n"
        "    for name, kernel in importlib.import_module(module).AOT.items():\n"
        "        ir, entry = c.compile_ir(kernel)\n"
        "        c.extract_text(name, machine.emit_object(c.lower(ir, entry, machine)), entry)\n"
        "        print(name)\n"
    )
    environment = {**os.environ, **aot.NUMBA_SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", code, processor, *KERNEL_MODULES],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {"ring_take", "follow", "align_frames", "scale_bytes"} <= set(done.stdout.split())
