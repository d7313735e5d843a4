import numpy as np
import pytest

from recd.config.errors import RecdError
from recd.config.streams import STATUS_DTYPE, leader_cell_dtype
from recd.shm import CellReader, CellWriter, Segment, cell_facts, create_cell
from recd.shm.dump import describe_cell

RECORD = np.dtype([("a", "<i8"), ("b", "<f4", (6,)), ("c", "u1", (3,))])
PADDED = np.dtype([("x", "u1"), ("y", "<f8"), ("z", [("p", "<i2"), ("q", "<i8")])], align=True)


@pytest.mark.parametrize("dtype", [RECORD, PADDED, STATUS_DTYPE, leader_cell_dtype(6), "<f8"])
def test_value_and_dtype_come_back_as_they_went_in(dtype: np.dtype):
    dtype = np.dtype(dtype)
    noise = np.random.default_rng(1).integers(0, 100, dtype.itemsize, np.uint8)
    record = noise.view(dtype)
    segment = create_cell("test", dtype, {"joints": ["a", "b"]})
    writer, reader = CellWriter(segment), CellReader(Segment.attach(segment.fd, readonly=True))
    assert reader.read() is None
    assert reader.refresh() == 0
    assert (reader.name, reader.dtype, reader.meta) == ("test", dtype, {"joints": ["a", "b"]})
    for given in (record[0], record, record.reshape(())):
        version = writer.write(given)
        read = reader.read()
        assert read is not None
        assert read[0] == version
        assert read[1] == record[0]
        assert reader.record[0] == record[0]
        for out in (np.zeros(1, dtype), np.zeros((), dtype)):
            assert reader.read(out) is not None
            assert np.array_equal(out.reshape(-1), record)
    assert version == 3


def test_records_read_are_copies():
    segment = create_cell("test", RECORD)
    writer, reader = CellWriter(segment), CellReader(segment)
    writer.record["a"] = 1
    writer.publish()
    first = reader.read()
    writer.record["a"] = 2
    writer.publish()
    second = reader.read()
    assert first is not None
    assert second is not None
    assert (first[1]["a"], second[1]["a"]) == (1, 2)
    first[1]["a"] = 9
    assert reader.record["a"] == 2


def test_unpublished_change_is_not_seen():
    segment = create_cell("test", RECORD)
    writer, reader = CellWriter(segment), CellReader(segment)
    writer.publish()
    writer.record["a"] = 5
    assert reader.refresh() == 1
    assert reader.record["a"] == 0


def test_record_of_another_dtype_is_refused():
    writer = CellWriter(create_cell("test", RECORD))
    with pytest.raises(ValueError, match="cell test: expected"):
        writer.write(np.zeros(1, PADDED))


def test_second_writer_is_refused_while_the_first_lives():
    segment = create_cell("test", RECORD)
    writer = CellWriter(segment)
    with pytest.raises(RecdError, match="still alive"):
        CellWriter(Segment.attach(segment.fd))
    writer.close()
    writer.close()
    CellWriter(segment)


def test_versions_go_on_after_a_restart():
    segment = create_cell("test", RECORD)
    first = CellWriter(segment)
    assert [first.publish() for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    first.close()
    second = CellWriter(segment)
    reader = CellReader(segment)
    assert reader.refresh() == 6
    assert second.publish() == 7


def test_dump_shows_the_value_in_plain_types():
    segment = create_cell("test", RECORD)
    assert describe_cell(segment)["value"] is None
    writer = CellWriter(segment)
    writer.record["b"] = 2.5
    writer.publish()
    told = describe_cell(segment)
    assert told["value"] == {"a": 0, "b": [2.5] * 6, "c": [0, 0, 0]}
    assert (told["version"], told["writer_alive"]) == (1, True)


def test_cell_is_no_ring_and_objects_are_refused():
    with pytest.raises(RecdError, match="is no cell"):
        cell_facts(Segment.create("test", 100))
    with pytest.raises(ValueError, match="holds objects"):
        create_cell("test", np.dtype("O"))
