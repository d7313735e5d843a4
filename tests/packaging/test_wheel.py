import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ("config", "shm", "daemon", "clients", "perf")
MADE_OF = (*LAYERS, "src", "systemd", "pyproject.toml", "README.md")


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory):
    """Built from a copy: what an earlier build left in the checkout would be taken along."""
    out, tree = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("tree")
    for name in MADE_OF:
        source = ROOT / name
        if source.is_dir():
            unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, tree / name, symlinks=True, ignore=unwanted)
        elif source.exists():
            shutil.copy(source, tree / name)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--no-isolation",
            "--wheel",
            "--outdir",
            str(out),
            str(tree),
        ],
        check=True,
        capture_output=True,
        timeout=110,
    )
    (wheel,) = out.glob("recd-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def in_wheel(suffixes: tuple[str, ...]) -> set[str]:
    return {
        f"recd/{path.relative_to(ROOT)}"
        for layer in LAYERS
        for path in (ROOT / layer).rglob("*")
        if path.suffix in suffixes and "__pycache__" not in path.parts
    }


def test_wheel_holds_exactly_the_modules_and_presets_of_the_tree(wheel_names):
    shipped = {n for n in wheel_names if n.startswith("recd/") and n.endswith((".py", ".yaml"))}
    wanted = in_wheel((".py", ".yaml")) | {"recd/__init__.py", "recd/entry.py"}
    assert shipped == wanted


def test_wheel_holds_every_template_of_the_service(wheel_names):
    shipped = {name for name in wheel_names if name.startswith("recd/systemd/")}
    assert shipped == {f"recd/systemd/{path.name}" for path in (ROOT / "systemd").iterdir()}


def test_wheel_holds_nothing_beside_the_package(wheel_names):
    tops = {name.split("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.startswith("recd")} == set()


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for layer in LAYERS for path in (ROOT / layer).rglob("*.py")}
    assert [f for f in folders if not (f / "__init__.py").exists()] == []


def test_every_layer_is_linked_into_the_namespace():
    links = {p.name: p.resolve() for p in (ROOT / "src" / "recd").iterdir() if p.is_symlink()}
    assert links == {folder: ROOT / folder for folder in (*LAYERS, "systemd")}
