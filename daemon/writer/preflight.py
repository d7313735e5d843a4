"""Asks the dataset folder, before anything starts, whether this robot can record into it.

Only reads. Calibrations and what a crash left are the writer's to judge, which opens the dataset.
"""

from recd.config.models import RobotConfig
from recd.daemon.dataset.handle import check_folder, effective_schema, read_identity
from recd.daemon.dataset.layout import Layout
from recd.daemon.dataset.state import read_info
from recd.daemon.writer.publish import dataset_schema


def check_dataset(robot: RobotConfig) -> None:
    """Raise DatasetError when the folder is no dataset, or one of another robot, size or rate."""
    layout = Layout(robot.dataset_root)
    check_folder(layout)
    read_identity(layout)
    if layout.info.exists():
        effective_schema(dataset_schema(robot), read_info(layout.info))
