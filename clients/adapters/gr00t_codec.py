"""The three msgpack forms of GR00T's ZeroMQ protocol: told apart by one reply, never unpickled.

B and C carry arrays as .npy files, D as msgpack-numpy maps; they differ in how a description of
modalities travels. A fourth one (torch archives) is named and refused.
"""

import io
import json
import re
from dataclasses import dataclass
from typing import Any, Literal

import msgpack
import numpy as np
import numpy.typing as npt

from recd.clients.adapters.arrays import CodecError, array_of, plain, said, unpack_map

Form = Literal["B", "C", "D"]

_NPY, _NPY_DATA = "__ndarray_class__", "as_npy"
_CONFIG_BC, _CONFIG_D, _CONFIG_DATA = "__ModalityConfig_class__", "__ModalityConfig__", "as_json"
NPY_MAGIC = b"\x93NUMPY"
NPY_LENGTHS = {b"\x01\x00": 2, b"\x02\x00": 4}
"""Version of a .npy -> bytes of its header's length."""

NPY_HEADER_BYTES = 512
NPY_HEADER = re.compile(
    rb"\{'descr': '([ -&(-~]{1,16})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,20}, ?)*\d{0,20})\), ?\} *\n?"
)


@dataclass(frozen=True, slots=True)
class Modality:
    """A description of one modality as it came; form: of the wire that it came by."""

    form: Form
    values: dict[str, Any]


def encode(message: Any, form: Form) -> bytes:
    """msgpack bytes of a request or reply. CodecError for what may not travel."""

    def told(value: Any) -> Any:
        if isinstance(value, np.generic):
            value = np.asarray(value)
        if isinstance(value, np.ndarray):
            return _array(plain(value), form)
        if isinstance(value, Modality):
            return _modality(value.values, form)
        raise TypeError(f"{type(value).__name__} has no form on this wire")

    try:
        return bytes(msgpack.packb(message, default=told))
    except (TypeError, ValueError, OverflowError) as error:
        raise CodecError(f"cannot be sent: {error}") from error


def decode(data: object) -> Any:
    """What is in a message of any of the three forms. CodecError for anything unsound."""
    if isinstance(data, bytes) and data.startswith(b"PK"):
        raise CodecError(
            "the server answers in torch archives (GR00T N1), which only unpickling could read",
            mend="Run a server of GR00T N1.5 or newer.",
        )
    if data == b"ERROR":
        raise CodecError(
            "the server speaks phosphobot's pickle protocol", mend="Run NVIDIA's own server.",
        )  # fmt: skip
    return unpack_map(data, _found)


def _array(values: npt.NDArray[Any], form: Form) -> dict[Any, Any]:
    if form == "D":
        return {b"nd": True, b"type": values.dtype.str, b"kind": b"", b"shape": list(values.shape),
                b"data": values.tobytes()}  # fmt: skip
    file = io.BytesIO()
    np.lib.format.write_array(file, values, version=(1, 0), allow_pickle=False)
    return {_NPY: True, _NPY_DATA: file.getvalue()}


def _modality(values: dict[str, Any], form: Form) -> dict[str, Any]:
    match form:
        case "B":
            return {_CONFIG_BC: True, _CONFIG_DATA: json.dumps(values)}
        case "C":
            return {_CONFIG_BC: True, _CONFIG_DATA: values}
        case "D":
            return {_CONFIG_D: True, _CONFIG_DATA: values}


def _found(told: dict[Any, Any]) -> Any:
    if _NPY in told:
        return read_npy(told.get(_NPY_DATA))
    if b"nd" in told:
        if told.get(b"kind", b"") not in (b"", ""):
            raise CodecError(f"array: expected a plain kind, found {said(told.get(b'kind'))}")
        shape = told.get(b"shape", []) if told[b"nd"] else []
        return array_of(told.get(b"type"), shape, told.get(b"data"))
    if _CONFIG_BC in told:
        values = told.get(_CONFIG_DATA)
        if isinstance(values, str):
            return Modality("B", _map(_json(values)))
        return Modality("C", _map(values))
    if _CONFIG_D in told:
        return Modality("D", _map(told.get(_CONFIG_DATA)))
    return told


def read_npy(data: object) -> npt.NDArray[Any]:
    """The array in the bytes of a .npy file. CodecError; an object array is one."""
    if not isinstance(data, bytes):
        raise CodecError(f"array: expected the bytes of a .npy file, found {type(data).__name__}")
    if data[:6] != NPY_MAGIC or data[6:8] not in NPY_LENGTHS:
        raise CodecError(f"array: expected a .npy of version 1 or 2, found {said(data[:8])}")
    begin = 8 + NPY_LENGTHS[data[6:8]]
    end = begin + int.from_bytes(data[8:begin], "little")
    if end - begin > NPY_HEADER_BYTES or len(data) < end:
        raise CodecError(f"array: expected a .npy header of at most {NPY_HEADER_BYTES} bytes")
    # Not numpy's own reader: it evaluates the text as Python, and tokenizes what it cannot.
    found = NPY_HEADER.fullmatch(data[begin:end])
    if found is None:
        raise CodecError(f"array: not a plain .npy header: {said(data[begin:end])}")
    descr, fortran, sizes = (part.decode("ascii") for part in found.groups())
    shape = [int(size) for size in sizes.split(",") if size.strip()]
    return array_of(descr, shape, data[end:], fortran=fortran == "True")


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CodecError(f"modality: not JSON: {error}") from error


def _map(values: object) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise CodecError(f"modality: expected a map, found {said(values)}")
    return values
