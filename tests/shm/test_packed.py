"""A record packed in one call holds what numpy would have written field by field."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd.config.streams import (
    arm_sample_dtype,
    leader_cell_dtype,
    meeting_dtype,
    telemetry_dtype,
)
from recd.shm.packed import record_struct

DTYPES = (arm_sample_dtype, telemetry_dtype, leader_cell_dtype, meeting_dtype)


def values_of(dtype: np.dtype, data: st.DataObject) -> list[list]:
    """Any values that fit, per field."""
    found = []
    for name in dtype.names:
        kind, shape = dtype[name].base, dtype[name].shape or (1,)
        if kind.kind == "f":
            one = st.floats(width=8 * kind.itemsize)
        else:
            facts = np.iinfo(kind)
            one = st.integers(int(facts.min), int(facts.max))
        found.append(data.draw(st.lists(one, min_size=shape[0], max_size=shape[0])))
    return found


@given(st.sampled_from(DTYPES), st.integers(1, 7), st.data())
def test_one_call_writes_and_reads_what_numpy_does(make, joints, data) -> None:
    dtype = make(joints)
    fields = values_of(dtype, data)
    expected = np.zeros(1, dtype)
    for name, values in zip(dtype.names, fields, strict=True):
        expected[name][0] = values if dtype[name].shape else values[0]
    packed = bytearray(dtype.itemsize)
    flat = [value for values in fields for value in values]
    record_struct(dtype).pack_into(packed, 0, *flat)
    found = np.frombuffer(packed, dtype)
    for name in dtype.names:
        np.testing.assert_array_equal(found[name], expected[name])
    np.testing.assert_array_equal(record_struct(dtype).unpack_from(packed), flat)


def test_a_dtype_that_no_struct_can_say_is_refused() -> None:
    with pytest.raises(ValueError, match="field b"):
        record_struct(np.dtype([("a", "<i4"), ("b", "S3")]))
    with pytest.raises(ValueError, match="field m"):
        record_struct(np.dtype([("m", "<f4", (2, 2))]))
