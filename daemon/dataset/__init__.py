"""LeRobot v3.0 datasets, written, taken back, recovered and verified without lerobot.

Everything public is named here; the files behind may change.
"""

from recd.daemon.dataset.commit import CommitResult
from recd.daemon.dataset.manifest import new_uid
from recd.daemon.dataset.parquet import EpisodeRows, Pictures
from recd.daemon.dataset.schema import Camera, DatasetSchema
from recd.daemon.dataset.stats import CameraHistogram, picture_stride
from recd.daemon.dataset.store import DatasetStore, Totals
from recd.daemon.dataset.videos import CodecPins, VideoFile

__all__ = [
    "Camera",
    "CameraHistogram",
    "CodecPins",
    "CommitResult",
    "DatasetSchema",
    "DatasetStore",
    "EpisodeRows",
    "Pictures",
    "Totals",
    "VideoFile",
    "new_uid",
    "picture_stride",
]
