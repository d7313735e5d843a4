"""LeRobot v3.0 datasets, written, taken back, recovered and verified without lerobot.

Everything public is named here; the files behind may change.
"""

from recd.daemon.dataset.calibrations import Used as CalibrationUsed
from recd.daemon.dataset.commit import CommitResult
from recd.daemon.dataset.decode import decode_episode
from recd.daemon.dataset.manifest import new_uid
from recd.daemon.dataset.pack import PackReport
from recd.daemon.dataset.parquet import EpisodeRows, Pictures
from recd.daemon.dataset.recover import ExitCode, RecoveryReport
from recd.daemon.dataset.retention import Retention
from recd.daemon.dataset.schema import Camera, DatasetSchema
from recd.daemon.dataset.sides import ROWS_FILE, RowBlock, RowLog
from recd.daemon.dataset.stats import CameraHistogram, picture_stride
from recd.daemon.dataset.store import DatasetStore, Totals
from recd.daemon.dataset.survey import EpisodeFacts, survey
from recd.daemon.dataset.trash import TrashEntry
from recd.daemon.dataset.verify import (
    VerifyReport,
    check_format,
    verify_dataset,
)
from recd.daemon.dataset.videos import CodecPins, VideoFile

__all__ = [
    "ROWS_FILE",
    "CalibrationUsed",
    "Camera",
    "CameraHistogram",
    "CodecPins",
    "CommitResult",
    "DatasetSchema",
    "DatasetStore",
    "EpisodeFacts",
    "EpisodeRows",
    "ExitCode",
    "PackReport",
    "Pictures",
    "RecoveryReport",
    "Retention",
    "RowBlock",
    "RowLog",
    "Totals",
    "TrashEntry",
    "VerifyReport",
    "VideoFile",
    "check_format",
    "decode_episode",
    "new_uid",
    "picture_stride",
    "survey",
    "verify_dataset",
]
