"""The compiler behind aot.py: numba to LLVM to relocatable machine code to one cache file.

Runs in a process of its own: `python -m recd.shm.aot_compile MODULE FILE`. Imports numba.
"""

import importlib
import os
import struct
import sys
from collections.abc import Iterator
from typing import Any

from llvmlite import binding as llvm
from numba import cfunc, types

from recd.shm.aot import Kernel, pack

NUMBA_TYPES = {
    "address": types.int64,
    "int64": types.int64,
    "float64": types.float64,
    "none": types.void,
    **{
        f"{item}*": types.CPointer(getattr(types, item))
        for item in ("uint8", "int32", "int64", "float32", "float64")
    },
}
ALIGN = 64
_IGNORED_SECTIONS = ("", ".strtab", ".symtab", ".note", ".eh_frame", ".rela.eh_frame", ".comment")


class KernelRefusedError(Exception):
    """A kernel that is not leaf code: says which and what of it cannot be moved."""


def compile_ir(kernel: Kernel) -> tuple[str, str]:
    """(optimised LLVM IR of the kernel as a C function, that function's name)."""
    signature = NUMBA_TYPES[kernel.result](*[NUMBA_TYPES[word] for word in kernel.arguments])
    compiled = cfunc(signature, nopython=True, error_model="numpy", _nrt=False)(kernel.function)
    return compiled._library.get_llvm_str(), compiled._wrapper_name


def target_machine(triple: str | None = None) -> Any:
    """Target `triple` (this machine's when None), its plain processor, position independent."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(triple or llvm.get_process_triple())
    return target.create_target_machine(opt=3, reloc="pic", codemodel="small")


def lower(ir: str, entry: str, machine: Any) -> Any:
    """Module for `machine` in which only `entry` and what it calls is left."""
    module = llvm.parse_assembly(ir)
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    for function in module.functions:
        if not function.is_declaration and function.name != entry:
            function.linkage = "internal"
    for variable in module.global_variables:
        if not variable.is_declaration:
            variable.linkage = "internal"
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_vectorization = tuning.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    return module


def machine_code(name: str, kernel: Kernel) -> tuple[bytes, int]:
    """(code, offset of the entry in it) for this machine.

    Raises KernelRefusedError when the code needs anything outside itself.
    """
    ir, entry = compile_ir(kernel)
    machine = target_machine()
    return extract_text(name, machine.emit_object(lower(ir, entry, machine)), entry)


def extract_text(name: str, elf: bytes, entry: str) -> tuple[bytes, int]:
    """The code section of a relocatable ELF64 object and the offset of `entry` in it."""
    sections = dict(_sections(elf))
    for section, (_, size) in sections.items():
        if size and section != ".text" and not section.startswith(_IGNORED_SECTIONS[1:]):
            raise KernelRefusedError(
                f"kernel {name}: needs section {section} ({size} bytes) beside its code. Keep "
                f"constants in arguments, raise nothing, call nothing that is not inlined."
            )
    start, size = sections[".text"]
    return elf[start : start + size], _symbol(elf, sections, entry)


def _sections(elf: bytes) -> Iterator[tuple[str, tuple[int, int]]]:
    """(name, (offset, size)) of every section that has a name."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise KernelRefusedError(
            "object code is not little-endian ELF64: this machine is not supported"
        )
    table, entry_bytes, count, names = struct.unpack_from("<Q10xHHH", elf, 40)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + i * entry_bytes) for i in range(count)]
    strings = headers[names][4]
    for name, _, _, _, offset, size in headers:
        end = elf.index(b"\0", strings + name)
        if text := elf[strings + name : end].decode():
            yield text, (offset, size)


def _symbol(elf: bytes, sections: dict[str, tuple[int, int]], wanted: str) -> int:
    start, size = sections[".symtab"]
    strings, _ = sections[".strtab"]
    for at in range(start, start + size, 24):
        name, value = struct.unpack_from("<I4xQ", elf, at)
        if elf[strings + name : elf.index(b"\0", strings + name)].decode() == wanted:
            return int(value)
    raise KernelRefusedError(f"no symbol {wanted} in the object code")


def compile_module(module: str) -> bytes:
    """Content of the cache file for the kernels in `module.AOT`."""
    table: dict[str, Kernel] = importlib.import_module(module).AOT
    code = b""
    functions: dict[str, Any] = {}
    for name, kernel in table.items():
        text, entry = machine_code(name, kernel)
        functions[name] = {
            "offset": len(code) + entry,
            "arguments": kernel.arguments,
            "result": kernel.result,
            "releases_gil": kernel.releases_gil,
        }
        code += text.ljust(-(-len(text) // ALIGN) * ALIGN, b"\0")
    return pack(functions, code)


def main() -> int:
    """Compile sys.argv[1] to the file sys.argv[2]; 1 with one line when a kernel is refused."""
    module, path = sys.argv[1:]
    try:
        content = compile_module(module)
    except KernelRefusedError as refused:
        print(refused, file=sys.stderr)
        return 1
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
