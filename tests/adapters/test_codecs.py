"""Messages of foreign servers: the bytes of the reference, and nothing of what is hostile."""

import json
import pickle
from types import ModuleType

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd.clients.adapters import gr00t_codec, openpi_codec
from recd.clients.adapters.arrays import MOST_BYTES, CodecError, array_of

OPENPI = bytes.fromhex("81a5") + b"state" + bytes.fromhex(
    "84c40b5f5f6e6461727261795f5fc3c40464617461c4080000803f00000040c4056474797065a33c6634"
    "c40573686170659102"
)  # fmt: skip
"""{"state": float32 [1, 2]} as the openpi client sends it."""

GR00T_D = bytes.fromhex(
    "85c4026e64c3c40474797065a33c6634c4046b696e64c400c40573686170659102c40464617461c408"
    "0000803f00000040"
)
"""float32 [1, 2] as msgpack-numpy 0.4.8 packs it."""

TWO = np.array([1, 2], np.float32)


def test_openpi_arrays_are_byte_for_byte_those_of_its_client() -> None:
    assert openpi_codec.encode({"state": TWO}) == OPENPI
    assert (openpi_codec.decode(OPENPI)["state"] == TWO).all()


def test_gr00t_arrays_of_form_d_are_byte_for_byte_msgpack_numpys() -> None:
    assert gr00t_codec.encode(TWO, "D") == GR00T_D
    assert (gr00t_codec.decode(GR00T_D) == TWO).all()


@pytest.mark.parametrize("form", ["B", "C", "D"])
@pytest.mark.parametrize("dtype", ["u1", "f4", "f8", "i8", "b1"])
def test_arrays_come_back_as_they_went_in_every_form(form, dtype) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    back = gr00t_codec.decode(gr00t_codec.encode({"a": values, "n": 1}, form))
    assert (back["a"] == values).all()
    assert back["a"].dtype == values.dtype
    back = openpi_codec.decode(openpi_codec.encode({"a": values.T, "b": np.float32(2)}))
    assert (back["a"] == values.T).all()
    assert back["b"] == 2.0


@pytest.mark.parametrize("form", ["B", "C", "D"])
def test_a_description_of_modalities_tells_the_form_of_the_wire(form) -> None:
    told = gr00t_codec.Modality(form, {"delta_indices": [0], "modality_keys": ["front"]})
    assert gr00t_codec.decode(gr00t_codec.encode({"video": told}, form))["video"] == told


def npy(text: str, data: bytes = b"") -> bytes:
    header = text.encode().ljust(118) + b"\n"
    packed = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data
    return bytes(msgpack.packb({"__ndarray_class__": True, "as_npy": packed}))


def openpi(dtype: object, shape: object, data: object) -> bytes:
    told = {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}
    return bytes(msgpack.packb({"actions": told}))


def d(**changes: object) -> bytes:
    told = {"nd": True, "type": "<f4", "kind": b"", "shape": [2], "data": bytes(8), **changes}
    return bytes(msgpack.packb({key.encode(): value for key, value in told.items()}))


HOSTILE_GR00T = [
    npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", pickle.dumps([1])),
    npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775808,), }"),
    npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", bytes(7)),
    npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", bytes(4)),
    npy("__import__('os')"), npy("(" * 90),
    msgpack.packb({"__ndarray_class__": True, "as_npy": "text"}),
    msgpack.packb({"__ndarray_class__": True, "as_npy": b"\x93NUMPY"}),
    d(kind=b"O", data=pickle.dumps([1])), d(type="|O"), d(type=[["a", "<f4"]], kind=b"V"),
    d(shape=[2**63]), d(shape=[2**31, 2**31, 4]), d(shape=[-2]), d(shape=[2.0]), d(data=bytes(4)),
    msgpack.packb({"__ModalityConfig_class__": True, "as_json": "{"}),
    msgpack.packb({"__ModalityConfig__": True, "as_json": [1]}),
    b"PK\x03\x04", b"ERROR", b"", b"\xc1", b"\x81\xa1a", b"\xdf\xff\xff\xff\xff",
    b"\x91" * 100_000, b"\x82\xa1a\x01\xa1a\x02", msgpack.packb(msgpack.ExtType(5, b"x")),
]  # fmt: skip

HOSTILE_OPENPI = [
    openpi("|O", [1], bytes(8)), openpi("<M8[s]", [1], bytes(8)), openpi("V8", [1], bytes(8)),
    openpi("<f4", [2**63], bytes(8)), openpi("<f4", [2**31, 2**33], bytes(8)),
    openpi("<f4", [-1], bytes(4)), openpi("<f4", [2], bytes(7)), openpi("<f4", 2, bytes(8)),
    openpi("<f4", [1] * 9, bytes(4)), openpi(b"<f4", [2], bytes(8)), openpi("<f4", [2], "text"),
    openpi(None, None, None), msgpack.packb({b"__npgeneric__": True, b"data": [1]}),
    b"", b"\xc1", b"\x81\xa1a", b"\xdf\xff\xff\xff\xff", b"\x91" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE_GR00T)
def test_hostile_gr00t_messages_are_refused_in_words(data) -> None:
    with pytest.raises(CodecError):
        gr00t_codec.decode(data)


@pytest.mark.parametrize("data", HOSTILE_OPENPI)
def test_hostile_openpi_messages_are_refused_in_words(data) -> None:
    with pytest.raises(CodecError):
        openpi_codec.decode(data)


def outcome(codec: ModuleType, data: bytes) -> str:
    try:
        codec.decode(data)
    except CodecError as error:
        return error.message
    return "read"


@given(st.binary(max_size=200), st.integers(0, len(GR00T_D) - 1))
def test_no_damage_to_a_message_is_anything_but_refused_or_read(junk, at) -> None:
    for codec in (openpi_codec, gr00t_codec):
        for data in (junk, GR00T_D[:at] + junk + GR00T_D[at:], OPENPI[:at] + junk + OPENPI[at:]):
            assert outcome(codec, data)


def test_objects_do_not_travel_either_way() -> None:
    for values in (np.array([{}], object), np.array(["a"]), np.array([1j])):
        with pytest.raises(CodecError):
            openpi_codec.encode({"a": values})
        with pytest.raises(CodecError):
            gr00t_codec.encode({"a": values}, "D")


def test_an_array_that_would_be_larger_than_any_answer_is_refused_before_it_is_made() -> None:
    with pytest.raises(CodecError, match="at most"):
        array_of("<f4", [MOST_BYTES // 4, 2], b"")


def test_fortran_order_is_read_as_it_is_meant() -> None:
    values = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert (gr00t_codec.decode(gr00t_codec.encode({"a": values}, "C"))["a"] == values).all()
    header = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }"
    assert (gr00t_codec.decode(npy(header, values.tobytes("F"))) == values).all()


def test_an_old_servers_torch_archive_is_named() -> None:
    with pytest.raises(CodecError, match="torch") as refused:
        gr00t_codec.decode(b"PK\x03\x04" + json.dumps({}).encode())
    assert "N1.5" in refused.value.mend
