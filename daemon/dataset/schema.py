"""What a dataset's rows are: features exactly as lerobot 0.6.1 writes them, and our own columns.

`plain` adds nothing, so that lerobot resumes and merges the dataset; `full` adds the versioned
list `OWN_COLUMNS`. Facts: LeRobotDataset v3.0 `info.json`, observed from lerobot 0.6.1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from recd.config.errors import DatasetError

Feature = dict[str, Any]
Features = dict[str, Feature]
Columns = Literal["plain", "full"]

SO_JOINTS = (
    "shoulder_pan",
    "shoulder_lift",
    "elbow_flex",
    "wrist_flex",
    "wrist_roll",
    "gripper",
)


@dataclass(frozen=True, slots=True)
class RobotKind:
    """How lerobot 0.6.1 names a robot: its `robot_type` in info.json and its position names."""

    robot_type: str
    positions: tuple[str, ...]


_SO = tuple(f"{joint}.pos" for joint in SO_JOINTS)
ROBOT_KINDS: Mapping[str, RobotKind] = MappingProxyType(
    {
        "so100_follower": RobotKind("so_follower", _SO),
        "so101_follower": RobotKind("so_follower", _SO),
        "so_follower": RobotKind("so_follower", _SO),
        "bi_so_follower": RobotKind(
            "bi_so_follower", tuple(f"{side}_{name}" for side in ("left", "right") for name in _SO)
        ),
    }
)
"""Configured robot type -> lerobot's names. The class of both SO arms is `so_follower` there."""


def lerobot_type(robot_type: str) -> str:
    """The `robot_type` that lerobot 0.6.1 writes for a configured robot (unknown: unchanged)."""
    kind = ROBOT_KINDS.get(robot_type)
    return kind.robot_type if kind else robot_type


BOOKKEEPING: Mapping[str, str] = MappingProxyType(
    {
        "timestamp": "float32",
        "frame_index": "int64",
        "episode_index": "int64",
        "index": "int64",
        "task_index": "int64",
    }
)
"""The five features every dataset ends with, with their types."""

CAMERA_NAMES = ("height", "width", "channels")
PICTURES = ("video", "image")
STATE = "observation.state"
ACTION = "action"
CAMERA_PREFIX = "observation.images."
OWN_COLUMNS_VERSION = 2


@dataclass(frozen=True, slots=True)
class OwnColumn:
    """One column of ours: per row a scalar, or a vector over cameras, state, action, or the pairs
    of arms where there are several. Texts over pairs are a column each: see `text_column`. since:
    the version of the list that brought it.
    """

    name: str
    dtype: str
    over: Literal["row", "cameras", "state", "action", "pairs"]
    unused: int | str
    meaning: str
    since: int = 1


OWN_COLUMNS: tuple[OwnColumn, ...] = (
    OwnColumn("recd.camera_error_ns", "int64", "cameras", 0, "capture time - row time, signed ns"),
    OwnColumn("recd.camera_source", "int64", "cameras", -1, "source frame number, -1 none"),
    OwnColumn("recd.camera_flags", "int64", "cameras", 0, "TickFlag bits"),
    OwnColumn("recd.state_error_ns", "int64", "row", 0, "largest sample - row time, signed ns"),
    OwnColumn("recd.state_valid", "bool", "state", 1, "the joint answered"),
    OwnColumn("recd.state_source", "int64", "row", -1, "bus sample number, -1 none"),
    OwnColumn("recd.action_error_ns", "int64", "row", 0, "largest goal - row time, signed ns"),
    OwnColumn("recd.action_valid", "bool", "action", 1, "the goal was fresh"),
    OwnColumn("recd.action_source", "int64", "row", -1, "bus sample number, -1 none"),
    OwnColumn("recd.intervention", "bool", "row", 0, "a person corrected a policy"),
    OwnColumn("recd.control_source", "int64", "row", 0, "GoalSource of the action"),
    OwnColumn("recd.chunk_id", "int64", "row", -1, "policy chunk the action came from, -1 none"),
    OwnColumn("recd.chunk_index", "int64", "row", -1, "position in that chunk, -1 none"),
    OwnColumn("recd.phase", "int64", "row", 0, "phase of the session plan"),
    OwnColumn("recd.episode_uid", "string", "row", "", "uid of the episode"),
    OwnColumn("recd.pair_control_source", "int64", "pairs", 0, "recd.control_source of each", 2),
    OwnColumn("recd.pair_intervention", "bool", "pairs", 0, "recd.intervention of each", 2),
    OwnColumn("recd.pair_chunk_id", "int64", "pairs", -1, "recd.chunk_id of each", 2),
    OwnColumn("recd.pair_chunk_index", "int64", "pairs", -1, "recd.chunk_index of each", 2),
    OwnColumn("recd.pair_task", "string", "pairs", "", "task of each one's chunk, empty none", 2),
    OwnColumn("recd.requested", "float32", "action", 0, "what leader or policy asked for", 2),
    OwnColumn("recd.limited", "float32", "action", 0, "what the arm's limits made of it", 2),
    OwnColumn("recd.sent", "float32", "action", 0, "what the servos were told", 2),
)
"""Version 2. Columns over pairs are there where a robot has several. Names that LeRobot's policies
ignore; none holds the word "image", which would make lerobot demand camera-shaped statistics;
cameras are a vector, so their names stay out of keys."""


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera as the dataset sees it: name and picture size after rotation."""

    name: str
    height: int
    width: int
    channels: int = 3

    @property
    def key(self) -> str:
        return CAMERA_PREFIX + self.name


def _vector(names: Sequence[str], dtype: str = "float32") -> Feature:
    return {"dtype": dtype, "names": list(names), "shape": [len(names)]}


def text_column(name: str, pair: str) -> str:
    """Name of one pair's column of texts: lerobot reads texts one a row, not as vectors."""
    return f"{name}.{pair}"


def _own_features(column: OwnColumn, names: Mapping[str, Sequence[str]]) -> Features:
    """The features of one own column, by name; none for a vector over nothing."""
    if column.over == "row":
        return {column.name: _own_feature(column, names)}
    if column.over == "pairs" and column.dtype == "string":
        one = OwnColumn(column.name, column.dtype, "row", column.unused, column.meaning)
        return {text_column(column.name, p): _own_feature(one, names) for p in names["pairs"]}
    return {column.name: _own_feature(column, names)} if names[column.over] else {}


def _own_feature(column: OwnColumn, names: Mapping[str, Sequence[str]]) -> Feature:
    over = None if column.over == "row" else list(names[column.over])
    return {
        "dtype": column.dtype,
        "shape": [1 if over is None else len(over)],
        "names": over,
        "info": {"recd_columns": OWN_COLUMNS_VERSION},
    }


def build_features(
    state_names: Sequence[str],
    *,
    action_names: Sequence[str],
    cameras: Sequence[Camera],
    use_videos: bool = True,
    columns: Columns = "plain",
    pairs: Sequence[str] = (),
) -> Features:
    """The `features` of info.json, in lerobot's order: action, state, cameras, own, bookkeeping.

    pairs: of arms, in the order of the state, where there are several. DatasetError for names that
    lerobot refuses or that would meet in one column.
    """
    features: Features = {ACTION: _vector(action_names), STATE: _vector(state_names)}
    for camera in cameras:
        if "/" in camera.name or not camera.name:
            raise DatasetError(
                f"camera name {camera.name!r}: LeRobot forbids '/' and empty names in features",
                mend="Rename the camera in the configuration.",
            )
        features[camera.key] = {
            "dtype": "video" if use_videos else "image",
            "shape": [camera.height, camera.width, camera.channels],
            "names": list(CAMERA_NAMES),
            "info": {"is_depth_map": camera.channels == 1},
        }
    if len(features) != 2 + len(cameras):
        raise DatasetError("two cameras have the same name", mend="Rename one of them.")
    if columns == "full":
        over = {
            "state": state_names,
            "action": action_names,
            "cameras": [camera.name for camera in cameras],
            "pairs": pairs if len(pairs) > 1 else (),
        }
        for column in OWN_COLUMNS:
            features |= _own_features(column, over)
    for name, dtype in BOOKKEEPING.items():
        features[name] = {"dtype": dtype, "shape": [1], "names": None}
    return features


@dataclass(frozen=True, slots=True)
class DatasetSchema:
    """Everything that must agree between a dataset and a robot that records into it.

    features: lerobot's dict; video features without the probed `info` block. pins: per video key
    the codec facts that a running dataset fixes (see `recd.daemon.dataset.videos.CodecPins`).
    """

    fps: int
    robot_type: str
    features: Features
    columns: Columns = "plain"
    pins: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def for_robot(
        cls,
        robot_type: str,
        *,
        fps: int,
        cameras: Sequence[Camera],
        state_names: Sequence[str] = (),
        action_names: Sequence[str] = (),
        use_videos: bool = True,
        columns: Columns = "plain",
        pairs: Sequence[str] = (),
    ) -> "DatasetSchema":
        """Schema as lerobot 0.6.1 makes it for this robot; names default to the known table. pairs:
        of arms, for the columns of `full` that each has.
        """
        kind = ROBOT_KINDS.get(robot_type)
        if kind is None and not state_names:
            raise DatasetError(
                f"robot type {robot_type!r}: no position names known",
                mend=f"Use one of {', '.join(ROBOT_KINDS)}, or give the names.",
            )
        states = tuple(state_names) or (kind.positions if kind else ())
        return cls(
            fps=fps,
            robot_type=lerobot_type(robot_type),
            features=build_features(
                states,
                action_names=tuple(action_names) or states,
                cameras=cameras,
                use_videos=use_videos,
                columns=columns,
                pairs=pairs,
            ),
            columns=columns,
        )

    @property
    def state_names(self) -> tuple[str, ...]:
        return tuple(self.features[STATE]["names"])

    @property
    def action_names(self) -> tuple[str, ...]:
        return tuple(self.features[ACTION]["names"])

    @property
    def camera_keys(self) -> tuple[str, ...]:
        return tuple(key for key, ft in self.features.items() if ft["dtype"] in PICTURES)

    @property
    def video_keys(self) -> tuple[str, ...]:
        return tuple(key for key, ft in self.features.items() if ft["dtype"] == "video")

    @property
    def image_keys(self) -> tuple[str, ...]:
        return tuple(key for key, ft in self.features.items() if ft["dtype"] == "image")

    @property
    def extra_keys(self) -> tuple[str, ...]:
        """Columns beside state, action, pictures and bookkeeping."""
        fixed = {STATE, ACTION, *BOOKKEEPING, *self.camera_keys}
        return tuple(key for key in self.features if key not in fixed)


def unused_column(name: str, rows: int, feature: Feature) -> Any:
    """The constant an own column holds where nothing fills it: array, or list of strings."""
    for column in OWN_COLUMNS:
        if name == column.name or (column.over == "pairs" and name.startswith(f"{column.name}.")):
            if column.dtype == "string":
                return [str(column.unused)] * rows
            width = feature["shape"][0]
            shape = (rows,) if width == 1 else (rows, width)
            return np.full(shape, column.unused, dtype=column.dtype)
    raise DatasetError(
        f"column {name!r} of this dataset has no value",
        mend="It is none of recd's columns: give it with the rows, or record into a new dataset.",
    )


def without_info(features: Mapping[str, Feature]) -> Features:
    """Features as lerobot compares them for resuming: dtype, shape and names only."""
    return {
        key: {
            "dtype": feature.get("dtype"),
            "shape": list(feature.get("shape", ())),
            "names": feature.get("names"),
        }
        for key, feature in features.items()
    }
