"""Where everything lies in a dataset folder. Names and numbers only; nothing here touches the disk.

Outside `.recd/` there are only files that LeRobot knows; everything of ours is inside it.
"""

from dataclasses import dataclass
from pathlib import Path

CODEBASE_VERSION = "v3.0"
FILES_PER_CHUNK = 1000
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200
DATA_TEMPLATE = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_TEMPLATE = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_TEMPLATE = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
OWN = ".recd"


@dataclass(frozen=True, slots=True, order=True)
class FileIndex:
    """Number of one file of a kind: chunk folder and file inside it."""

    chunk: int
    file: int

    def next(self, files_per_chunk: int = FILES_PER_CHUNK) -> "FileIndex":
        """The number after this one: the chunk folder is full at `files_per_chunk`."""
        if self.file >= files_per_chunk - 1:
            return FileIndex(self.chunk + 1, 0)
        return FileIndex(self.chunk, self.file + 1)


FIRST = FileIndex(0, 0)


def data_name(index: FileIndex) -> str:
    """Path of a data file, relative to the dataset folder."""
    return DATA_TEMPLATE.format(chunk_index=index.chunk, file_index=index.file)


def video_name(key: str, index: FileIndex) -> str:
    """Path of an mp4 of the camera feature `key`, relative to the dataset folder."""
    return VIDEO_TEMPLATE.format(video_key=key, chunk_index=index.chunk, file_index=index.file)


def episodes_name(index: FileIndex) -> str:
    """Path of an episodes file, relative to the dataset folder."""
    return EPISODES_TEMPLATE.format(chunk_index=index.chunk, file_index=index.file)


def index_of(name: str | Path) -> FileIndex | None:
    """File number in a path `.../chunk-NNN/file-NNN.ext`; None for any other name."""
    folder, _, last = str(name).rpartition("/")
    chunk, _, chunk_number = folder.rpartition("/")[2].partition("-")
    file, _, file_number = (last.rpartition(".")[0] or last).partition("-")
    if (chunk, file) != ("chunk", "file"):
        return None
    if not (chunk_number.isdigit() and file_number.isdigit()):
        return None
    return FileIndex(int(chunk_number), int(file_number))


@dataclass(frozen=True, slots=True)
class Layout:
    """The places inside one dataset folder `root`."""

    root: Path

    @property
    def info(self) -> Path:
        return self.root / INFO

    @property
    def stats(self) -> Path:
        return self.root / STATS

    @property
    def tasks(self) -> Path:
        return self.root / TASKS

    @property
    def own(self) -> Path:
        return self.root / OWN

    @property
    def identity(self) -> Path:
        """What this folder is to recd: format version, columns, repo_id."""
        return self.own / "dataset.json"

    @property
    def calibrations(self) -> Path:
        """Calibrations of the arms that episodes were recorded with."""
        return self.own / "calibrations.json"

    @property
    def journal(self) -> Path:
        return self.own / "journal"

    @property
    def lock(self) -> Path:
        return self.own / "lock"

    def staging(self, uid: str) -> Path:
        """Running or not yet published episode."""
        return self.own / "staging" / uid

    def episode(self, uid: str) -> Path:
        """Manifest and side files of a published episode."""
        return self.own / "episodes" / uid

    def undo(self, uid: str) -> Path:
        """Metadata as it was before the episode was published."""
        return self.own / "undo" / uid

    def trash(self, uid: str) -> Path:
        """An undone, deleted or discarded episode, whole."""
        return self.own / "trash" / uid

    def quarantine(self, uid: str) -> Path:
        """What recovery could not prove, with the reason."""
        return self.own / "quarantine" / uid

    def relative(self, path: Path) -> str:
        """`path` relative to the dataset folder, with forward slashes."""
        return path.relative_to(self.root).as_posix()
