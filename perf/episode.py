"""One stored episode as a stranger finds it: rows, videos, side files, manifest. Reads only."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.config.errors import DatasetError
from recd.config.policy_streams import chunk_dtype
from recd.config.streams import TICK_DTYPE, arm_sample_dtype
from recd.daemon.dataset.layout import Layout
from recd.daemon.dataset.manifest import read_manifest
from recd.daemon.writer.sidelog import records_of

Records = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class StoredEpisode:
    """Where the parts of one episode lie. index: LeRobot's episode number."""

    root: Path
    uid: str
    index: int

    @property
    def own(self) -> Path:
        """Folder of manifest and side files."""
        return Layout(self.root).episode(self.uid)

    def manifest(self) -> dict[str, Any]:
        """The episode's manifest."""
        return read_manifest(self.own)

    def ticks(self, camera: str) -> Records:
        """Row records of one camera, TICK_DTYPE [K].

        The stream may hold one more: an encoder that had decided a row when `stop` set the end
        cuts its video, while the record of that row was written already.
        """
        return self._side(f"ticks.{camera}", TICK_DTYPE)[: int(self._facts()["length"])]

    def tick_log(self, camera: str) -> Records:
        """The same, also of an episode whose streams were cut off by a crash."""
        from recd.daemon.dataset.sides import read_stream

        table, _ = read_stream(self.own / f"ticks.{camera}.arrows")
        if not table.num_columns:
            return np.zeros(0, TICK_DTYPE)
        return records_of(table, TICK_DTYPE)

    def samples(self, bus: str, *, joints: int) -> Records:
        """Native-rate samples of one arm bus."""
        return self._side(f"arm.{bus}", arm_sample_dtype(joints))

    def chunks(self, *, width: int) -> Records:
        """Every chunk that policies sent meanwhile, with its ACK. width: joints of the robot."""
        return self._side("chunks", chunk_dtype(width))

    def row_log(self) -> dict[str, npt.NDArray[Any]]:
        """The rows as they were logged while recording, with all own columns, by name."""
        from recd.daemon.dataset.sides import ROWS_FILE

        table = self._stream(ROWS_FILE)
        return {name: np.array(table[name].to_pylist()) for name in table.column_names}

    def _side(self, stream: str, dtype: np.dtype[np.void]) -> Records:
        return records_of(self._stream(f"{stream}.arrows"), dtype)

    def _stream(self, name: str) -> Any:
        from recd.daemon.dataset.sides import read_stream

        path = self.own / name
        if not path.exists():
            found = sorted(file.name for file in self.own.glob("*")) if self.own.exists() else []
            raise DatasetError(
                f"{path}: expected a side file, found {found or 'nothing'}",
                mend="Without side files nothing can be checked; record with this version of recd.",
            )
        table, whole = read_stream(path)
        if not whole:
            raise DatasetError(f"{path}: was cut off")
        return table

    def rows(self) -> dict[str, npt.NDArray[Any]]:
        """Columns of the dataset's own rows of this episode: `observation.state`, `action`, ..."""
        import pyarrow.compute as pc

        from recd.daemon.dataset.parquet import read_table

        facts = self._facts()
        name = self._template("data_path", facts, "data/chunk_index", "data/file_index")
        table = read_table(self.root / name)
        table = table.filter(pc.equal(table["episode_index"], self.index))
        return {name: np.array(table[name].to_pylist()) for name in table.column_names}

    def video(self, camera: str) -> Path:
        """The mp4 with this episode's pictures; DatasetError when it also holds other episodes."""
        key = f"observation.images.{camera}"
        facts = self._facts()
        if facts[f"videos/{key}/from_timestamp"] != 0.0:
            raise DatasetError(
                f"{key}: episode {self.index} begins inside its file",
                mend="Measure before the dataset is packed.",
            )
        chunk, file = f"videos/{key}/chunk_index", f"videos/{key}/file_index"
        return self.root / self._template("video_path", facts, chunk, file, video_key=key)

    def _facts(self) -> Mapping[str, Any]:
        from recd.daemon.dataset.parquet import read_table

        for path in sorted(self.root.glob("meta/episodes/*/*.parquet")):
            for row in read_table(path).to_pylist():
                if row["episode_index"] == self.index:
                    return row
        raise DatasetError(f"{self.root}: no episode {self.index} in meta/episodes")

    def _template(
        self, name: str, facts: Mapping[str, Any], chunk: str, file: str, **more: str
    ) -> str:
        info = json.loads(Layout(self.root).info.read_text())
        return str(info[name]).format(chunk_index=facts[chunk], file_index=facts[file], **more)


def disk_bytes(root: Path) -> dict[str, int]:
    """Bytes of a dataset folder: what LeRobot sees, and all of it with our side files; not what
    was discarded."""
    own = everything = 0
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        if path.is_file() and not path.is_symlink() and parts[:2] != (".recd", "trash"):
            size = path.stat().st_size
            everything += size
            own += size if ".recd" in parts else 0
    return {"dataset_bytes": everything - own, "with_side_files_bytes": everything}
