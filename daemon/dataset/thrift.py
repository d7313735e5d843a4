"""Thrift's compact protocol, as far as Parquet's headers and footers use it. Pure.

A struct is {field number: value}: int, bool, bytes, list or struct. Limit: no maps or doubles.
"""

from typing import Any

MAX_DEPTH = 16
MAX_ITEMS = 1 << 20
TRUE, FALSE, BYTE, I16, I32, I64, BINARY, LIST, STRUCT = 1, 2, 3, 4, 5, 6, 8, 9, 12

Struct = dict[int, Any]


class ThriftError(ValueError):
    """Not a struct of the kinds known here, or cut off."""


def read_struct(data: bytes, position: int, depth: int = 0) -> tuple[Struct, int]:
    """The struct at `position` and where it ends. ThriftError when it is none."""
    found: Struct = {}
    number = 0
    while True:
        head = _byte(data, position)
        position += 1
        if head == 0:
            return found, position
        step, kind = head >> 4, head & 15
        if step:
            number += step
        else:
            number, position = _integer(data, position)
        found[number], position = _value(data, position, kind, depth, inside=False)


def _byte(data: bytes, position: int) -> int:
    if position >= len(data):
        raise ThriftError("cut off")
    return data[position]


def _unsigned(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = _byte(data, position)
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
        if shift > 63:
            raise ThriftError("number too long")


def _integer(data: bytes, position: int) -> tuple[int, int]:
    value, position = _unsigned(data, position)
    return (value >> 1) ^ -(value & 1), position


def _value(data: bytes, position: int, kind: int, depth: int, *, inside: bool) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise ThriftError("nested too deep")
    if kind in (TRUE, FALSE):
        if inside:
            return _byte(data, position) == TRUE, position + 1
        return kind == TRUE, position
    if kind == BYTE:
        return _byte(data, position), position + 1
    if kind in (I16, I32, I64):
        return _integer(data, position)
    if kind == BINARY:
        size, position = _unsigned(data, position)
        if position + size > len(data):
            raise ThriftError("cut off")
        return data[position : position + size], position + size
    if kind == LIST:
        return _list(data, position, depth)
    if kind == STRUCT:
        return read_struct(data, position, depth + 1)
    raise ThriftError(f"type {kind}")


def _list(data: bytes, position: int, depth: int) -> tuple[list[Any], int]:
    head = _byte(data, position)
    position += 1
    count, kind = head >> 4, head & 15
    if count == 15:
        count, position = _unsigned(data, position)
    if count > MAX_ITEMS:
        raise ThriftError("list too long")
    items = []
    for _ in range(count):
        item, position = _value(data, position, kind, depth + 1, inside=True)
        items.append(item)
    return items, position


def write_struct(value: Struct, *, long: type[int]) -> bytes:
    """`value` as bytes. long: the kind of int that is written as i64; others are i32."""
    out = bytearray()
    before = 0
    for number in sorted(value):
        item = value[number]
        kind = _kind(item, long)
        if isinstance(item, bool):
            kind = TRUE if item else FALSE
        step = number - before
        if 0 < step < 16:
            out.append(step << 4 | kind)
        else:
            out.append(kind)
            out += _packed(_zigzag(number))
        before = number
        if not isinstance(item, bool):
            out += _written(item, long)
    out.append(0)
    return bytes(out)


def _kind(item: Any, long: type[int]) -> int:
    for kind, python in ((TRUE, bool), (I64, long), (I32, int), (BINARY, bytes), (LIST, list)):
        if isinstance(item, python):
            return kind
    return STRUCT


def _zigzag(number: int) -> int:
    return number << 1 if number >= 0 else (-number << 1) - 1


def _packed(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _written(item: Any, long: type[int]) -> bytes:
    if isinstance(item, bool):
        return bytes([TRUE if item else FALSE])
    if isinstance(item, int):
        return _packed(_zigzag(item))
    if isinstance(item, bytes):
        return _packed(len(item)) + item
    if isinstance(item, list):
        kind = _kind(item[0], long) if item else STRUCT
        head = bytes([len(item) << 4 | kind]) if len(item) < 15 else (
            bytes([0xF0 | kind]) + _packed(len(item))
        )  # fmt: skip
        return head + b"".join(_written(each, long) for each in item)
    return write_struct(item, long=long)
