import ctypes
import subprocess

import pytest

from recd.daemon.cameras import v4l2_abi as abi
from recd.daemon.sim.v4l2shim.build import compiler


@pytest.fixture(scope="module")
def header_says(tmp_path_factory):
    """Sizes, offsets and request numbers as the C compiler sees them."""
    path = compiler()
    if path is None:
        pytest.skip("no C compiler (cc, gcc or clang) to read the kernel's header with")
    lines = ["#include <linux/videodev2.h>", "#include <stddef.h>", "#include <stdio.h>"]
    lines.append("int main(void) {")
    for name, structure in abi.STRUCTURES.items():
        lines.append(f'printf("{name} %zu\\n", sizeof(struct {name}));')
        for member in _members(structure):
            lines.append(f'printf("{name}.{member} %zu\\n", offsetof(struct {name}, {member}));')
    for name in abi.REQUESTS:
        lines.append(f'printf("{name} %lu\\n", (unsigned long){name});')
    lines.append("return 0; }")
    folder = tmp_path_factory.mktemp("abi")
    (folder / "abi.c").write_text("\n".join(lines))
    subprocess.run([path, "-o", folder / "abi", folder / "abi.c"], check=True, timeout=60)
    out = subprocess.run([folder / "abi"], capture_output=True, text=True, check=True, timeout=10)
    return {name: int(value) for name, value in map(str.split, out.stdout.splitlines())}


def _members(structure):
    renamed = {"u", "fmt", "parm", "value64", "m"}
    return [name for name, *_ in structure._fields_ if name not in renamed]


def test_every_structure_has_the_layout_of_the_kernels_header(header_says):
    ours = {}
    for name, structure in abi.STRUCTURES.items():
        ours[name] = ctypes.sizeof(structure)
        ours |= {f"{name}.{m}": getattr(structure, m).offset for m in _members(structure)}
    assert ours == {name: header_says[name] for name in ours}


def test_every_request_has_the_number_of_the_kernels_header(header_says):
    ours = {name: number for name, (number, _) in abi.REQUESTS.items()}
    assert ours == {name: header_says[name] for name in ours}


def test_unions_inside_structures_are_where_the_kernel_puts_them():
    assert abi.Format.fmt.offset == 8
    assert abi.StreamParm.parm.offset == 4
    assert abi.Buffer.m.offset == 64
    assert abi.ExtControl.value64.offset == 12
