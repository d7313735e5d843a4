from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from recd.config.errors import DatasetError
from recd.daemon.dataset import Camera, DatasetSchema, RowBlock, RowLog
from recd.daemon.dataset.sides import read_rows, rows_schema


def schema_of(columns: str = "full", cameras: int = 2) -> DatasetSchema:
    listed = [Camera(f"c{number}", 48, 64) for number in range(cameras)]
    return DatasetSchema.for_robot("so101_follower", fps=30, cameras=listed, columns=columns)


def block_of(first: int, count: int, **extra: object) -> RowBlock:
    numbers = np.arange(first, first + count)
    state = np.repeat(numbers, 6).reshape(count, 6).astype(np.float32)
    return RowBlock(first, numbers * 10, state, state + 1, ["pick"] * count, extra)


def test_rows_come_back_as_written_with_own_columns_and_defaults(tmp_path):
    schema = schema_of()
    log = RowLog(tmp_path, schema, uid="u" * 32)
    error = np.array([[1, -2], [3, -4], [5, -6]])
    log.append(block_of(0, 3, **{"recd.camera_error_ns": error, "recd.phase": 2}))
    log.append(block_of(3, 2))
    log.close()
    logged = read_rows(log.path, schema)
    assert logged.closed
    assert logged.tick_ns.tolist() == [0, 10, 20, 30, 40]
    assert logged.rows.state[4].tolist() == [4.0] * 6
    assert logged.rows.extra["recd.camera_error_ns"][:3].tolist() == error.tolist()
    assert logged.rows.extra["recd.phase"].tolist() == [2, 2, 2, 0, 0]
    assert logged.rows.extra["recd.state_valid"].all()
    assert logged.rows.extra["recd.episode_uid"] == ["u" * 32] * 5


def test_a_plain_dataset_keeps_the_same_truth_beside_it_but_not_in_its_rows(tmp_path):
    schema = schema_of("plain")
    log = RowLog(tmp_path, schema, uid="u")
    log.append(block_of(0, 2))
    log.close()
    assert read_rows(log.path, schema).rows.extra == {}
    full = replace(schema_of(), columns="full")
    assert "recd.camera_error_ns" in read_rows(log.path, full).rows.extra


def test_several_pairs_have_columns_of_their_own_and_one_pair_has_none(tmp_path):
    schema = schema_of()
    sources = np.array([[1, 2], [1, 3]])
    log = RowLog(tmp_path, schema, uid="u", pairs=("left", "right"))
    tasks = np.array(["fold", ""])
    told = {"recd.pair_control_source": sources, "recd.pair_task.right": tasks}
    log.append(block_of(0, 2, **told))
    log.close()
    with log.path.open("rb") as file:
        told = pa.ipc.open_stream(file).read_all()
    assert told.schema.metadata[b"recd.pairs"] == b"left,right"
    assert told["recd.pair_control_source"].to_pylist() == sources.tolist()
    assert told["recd.pair_chunk_id"].to_pylist() == [[-1, -1]] * 2
    assert told["recd.pair_task.right"].to_pylist() == ["fold", ""]
    assert told["recd.pair_task.left"].to_pylist() == ["", ""]
    assert len(read_rows(log.path, schema).rows) == 2
    one = rows_schema(schema, "u")
    assert not [name for name in one.names if name.startswith("recd.pair_")]


@pytest.mark.parametrize("pairs", [(), ("left", "right")])
def test_a_stream_of_the_version_before_is_read_and_lacks_only_what_came_later(tmp_path, pairs):
    robot = "bi_so_follower" if pairs else "so101_follower"
    schema = DatasetSchema.for_robot(robot, fps=30, cameras=[], columns="full", pairs=pairs)
    earlier = rows_schema(schema, "u", pairs, version=1)
    told = {**earlier.metadata, b"recd.rows_version": b"2" if pairs else b"1"}
    assert not {"recd.requested", "recd.pair_task.left"} & set(earlier.names)
    assert ("recd.pair_chunk_id" in earlier.names) is bool(pairs)
    columns = []
    for field in earlier:
        width = getattr(field.type, "list_size", 0)
        kind = field.type.value_type if width else field.type
        one = "pick" if pa.types.is_string(kind) else kind.to_pandas_dtype()(0)
        columns.append(pa.array([[one] * width if width else one], field.type))
    path = tmp_path / "rows.arrows"
    with pa.ipc.new_stream(path, earlier.with_metadata(told)) as stream:
        stream.write_batch(pa.RecordBatch.from_arrays(columns, names=earlier.names))
    found = read_rows(path, schema).rows
    assert found.task == ["pick"]
    assert set(schema.extra_keys) - set(found.extra) == {
        name for name in schema.extra_keys
        if name in ("recd.requested", "recd.limited", "recd.sent") or "pair_task" in name
    }  # fmt: skip


def test_one_camera_may_give_a_scalar_per_row(tmp_path):
    schema = schema_of(cameras=1)
    log = RowLog(tmp_path, schema, uid="u")
    log.append(block_of(0, 3, **{"recd.camera_error_ns": np.array([7, 8, 9])}))
    log.close()
    assert read_rows(log.path, schema).rows.extra["recd.camera_error_ns"].tolist() == [
        [7],
        [8],
        [9],
    ]


def test_a_stream_cut_anywhere_gives_its_whole_batches(tmp_path):
    schema = schema_of()
    log = RowLog(tmp_path, schema, uid="u")
    sizes = []
    for first in range(0, 12, 3):
        log.append(block_of(first, 3))
        log.sync()
        sizes.append(log.path.stat().st_size)
    log.close()
    whole = log.path.read_bytes()
    for cut in range(sizes[0], len(whole), 97):
        log.path.write_bytes(whole[:cut])
        logged = read_rows(log.path, schema)
        assert len(logged.rows) == 3 * sum(size <= cut for size in sizes)
        assert not logged.closed
    log.path.write_bytes(whole[: sizes[0] - 1])
    with pytest.raises(DatasetError, match="no whole row"):
        read_rows(log.path, schema)


def test_rows_out_of_order_are_refused(tmp_path):
    log = RowLog(tmp_path, schema_of(), uid="u")
    log.append(block_of(0, 2))
    with pytest.raises(ValueError, match="row 2 is next, got 5"):
        log.append(block_of(5, 1))
    log.close()


def test_rows_of_another_robot_are_refused(tmp_path):
    log = RowLog(tmp_path, schema_of(cameras=1), uid="u")
    log.append(block_of(0, 2, **{"recd.camera_error_ns": np.zeros((2, 1))}))
    log.close()
    with pytest.raises(DatasetError, match="not those of this dataset"):
        read_rows(log.path, schema_of(cameras=2))
