"""Profiles: which camera and which joint has which key at a policy server, as data.

A profile is a YAML file. It is bound to one robot: names that the robot does not have are refused
before anything connects. Numbers are scaled here, and nowhere else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import Field, ValidationError

from recd.config.errors import RecdError
from recd.config.models import Section

Floats = npt.NDArray[np.float64]

ALL = "joints"
"""As columns: all joints of the robot, in the dataset's order."""

DEFAULTS: Mapping[str, str] = {"openpi": "libero", "gr00t": "so101", "lerobot": "lerobot"}
"""`policy.type` -> profile where none is named."""


class ProfileError(RecdError):
    """A profile that cannot be read, or does not fit this robot."""

    code = "profile"


class Picture(Section):
    """One picture of a request."""

    camera: str
    """Camera of the robot, or a place that `policy.server.cameras` fills."""
    order: Literal["hwc", "chw"] = "hwc"
    """Order of its axes."""
    rotate: Literal[0, 180] = 0
    """Degrees by which it is turned, after scaling."""


class Column(Section):
    """One number of a state or an action; what the server calls 1.0 is `scale` in dataset units."""

    joint: str
    """Name as in the dataset, e.g. `shoulder_pan.pos`."""
    scale: Annotated[float, Field(gt=-1e6, lt=1e6)] = 1.0
    """dataset value = server's value * scale + offset"""
    offset: float = 0.0


Columns = Literal["joints"] | list[str | Column | None]
"""`joints`, or a list: a joint, a scaled joint, null for a number that this robot does not have."""


class Actions(Section):
    """One array of a reply."""

    columns: Columns = "joints"
    """What its columns are."""
    means: Literal["position", "velocity", "relative"] = "position"
    """Positions, units per second, or distances from the state at the observation."""
    positions: list[str] = Field(default_factory=list)
    """Joints whose column is a position all the same (the gripper among velocities)."""


class Profile(Section):
    """Names and units of one kind of policy server."""

    wire: str
    """`policy.type` that it is for."""
    images: dict[str, Picture] = Field(default_factory=dict)
    """Key -> picture. A dot in a key goes one map deeper."""
    state: dict[str, Columns] = Field(default_factory=dict)
    """Key -> columns."""
    actions: dict[str, Actions]
    """Key -> columns and what they mean."""
    prompt: str = ""
    """Key of the task; empty: the server says it, or wants none."""
    size: Literal[0] | Annotated[int, Field(ge=16, le=4096)] = 0
    """Edge of the pictures in pixels, scaled with their shape kept and padded; 0: as they are."""
    step_s: float | None = Field(default=None, gt=0, le=1)
    """Time between two steps of a chunk; none: one row of the dataset."""


def profile_names() -> tuple[str, ...]:
    """Names of the profiles that come with recd."""
    folder = resources.files("recd.clients.adapters") / "profiles"
    return tuple(sorted(p.name.removesuffix(".yaml") for p in folder.iterdir()
                        if p.name.endswith(".yaml")))  # fmt: skip


def load_profile(name: str, *, wire: str) -> Profile:
    """A profile by name or file, the default one of `wire` when empty. ProfileError."""
    name = name or DEFAULTS[wire]
    try:
        if name in profile_names():
            text = (resources.files("recd.clients.adapters") / "profiles" / f"{name}.yaml"
                    ).read_text(encoding="utf-8")  # fmt: skip
        else:
            text = Path(name).expanduser().read_text(encoding="utf-8")
        profile = Profile.model_validate(yaml.safe_load(text))
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(
            f"policy.server.profile: expected a YAML file or one of {', '.join(profile_names())}, "
            f"found {name!r} ({error.__class__.__name__})", mend="recd reads it at each start.",
        ) from error  # fmt: skip
    except yaml.YAMLError as error:
        raise ProfileError(f"{name}: not YAML: {str(error).splitlines()[0]}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ProfileError(
            f"{name}: {where}: {first['msg']}, found {first['input']!r:.60}",
            mend="docs/policy_adapters.md shows the format.",
        ) from error
    if profile.wire != wire:
        raise ProfileError(
            f"{name}: expected a profile for {wire}, found one for {profile.wire}",
            mend="Change policy.type or policy.server.profile.",
        )
    return profile


@dataclass(frozen=True, slots=True)
class Bound:
    """Columns bound to a robot. index: column -> place in the robot's vector, -1 none."""

    index: npt.NDArray[np.int64]
    scale: Floats
    offset: Floats

    @property
    def width(self) -> int:
        return len(self.index)

    def outward(self, state: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """float32 [N] for the server from the robot's vector; 0 where the robot has no joint."""
        values = np.where(self.index < 0, 0.0, state[self.index].astype(np.float64))
        return np.where(
            self.index < 0, 0.0, (values - self.offset) / self.scale
        ).astype(np.float32)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BoundActions:
    """One action array bound to a robot. moves: columns that are velocities or distances."""

    columns: Bound
    means: str
    moves: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Binding:
    """A profile at one robot: every name found. joints: the robot's, in order; cameras: image key
    -> the robot's camera."""

    profile: Profile
    joints: tuple[str, ...]
    cameras: Mapping[str, str]
    state: Mapping[str, Bound]
    actions: Mapping[str, BoundActions]
    mask: npt.NDArray[np.bool_]
    """bool [D]: dimensions that the policy drives; the rest hold."""

    def view(self, state: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
        """The state under the server's keys."""
        return {key: bound.outward(state) for key, bound in self.state.items()}

    def chunk(self, reply: Mapping[str, Floats], state: npt.NDArray[Any], step_s: float) -> Floats:
        """Absolute positions float64 [T, D] in dataset units; the mask's others are the state's.

        reply: float64 [T, N] per action key; state: the one at the observation.
        """
        steps = min(len(values) for values in reply.values())
        out = np.tile(np.nan_to_num(np.asarray(state, np.float64)), (steps, 1))
        for key, bound in self.actions.items():
            at = np.flatnonzero(bound.columns.index >= 0)
            place = bound.columns.index[at]
            values = reply[key][:steps, at] * bound.columns.scale[at]
            moves = bound.moves[at]
            if bound.means == "velocity":
                moved = out[:, place] + np.cumsum(values * step_s, axis=0)
            else:
                moved = out[:, place] + values
            out[:, place] = np.where(moves, moved, values + bound.columns.offset[at])
        return out


def bind(
    profile: Profile, *, joints: Sequence[str], cameras: Sequence[str], places: Mapping[str, str]
) -> Binding:
    """A profile at a robot with these joints and cameras. ProfileError with every wrong name.

    places: camera of the profile -> the robot's, where they differ.
    """
    wrong: list[str] = []
    for place, camera in places.items():
        known = {picture.camera for picture in profile.images.values()}
        if place not in known:
            wrong.append(f"policy.server.cameras.{place}: expected one of "
                         f"{', '.join(sorted(known)) or 'none'}, found {place!r}")  # fmt: skip
        elif camera not in cameras:
            wrong.append(f"policy.server.cameras.{place}: expected one of "
                         f"{', '.join(cameras) or 'none'}, found {camera!r}")  # fmt: skip
    bound_cameras = {}
    for key, picture in profile.images.items():
        camera = places.get(picture.camera, picture.camera)
        bound_cameras[key] = camera
        if camera not in cameras and picture.camera not in places:
            wrong.append(f"images.{key}: expected one of the cameras {', '.join(cameras) or 'none'}"
                         f", found {camera!r}")  # fmt: skip
    state = {k: _bound(c, joints, f"state.{k}", wrong) for k, c in profile.state.items()}
    actions = {}
    for key, given in profile.actions.items():
        columns = _bound(given.columns, joints, f"actions.{key}", wrong)
        fixed = [_place(name, joints, f"actions.{key}.positions", wrong)
                 for name in given.positions]  # fmt: skip
        moves = ~np.isin(columns.index, fixed)
        if given.means == "position":
            moves = np.zeros(columns.width, np.bool_)
        actions[key] = BoundActions(columns, given.means, moves)
    if wrong:
        raise ProfileError(
            "profile: " + "; ".join(wrong),
            mend="Name the cameras under policy.server.cameras, or write a profile of your own "
            "(docs/policy_adapters.md).",
        )
    mask = np.zeros(len(joints), np.bool_)
    for key, driven in actions.items():
        for at in driven.columns.index[driven.columns.index >= 0]:
            if mask[at]:
                raise ProfileError(f"actions.{key}: {joints[at]} is driven twice")
            mask[at] = True
    if not mask.any():
        raise ProfileError("actions: expected a joint of this robot, found none")
    return Binding(profile, tuple(joints), bound_cameras, state, actions, mask)


def _bound(given: Any, joints: Sequence[str], where: str, wrong: list[str]) -> Bound:
    columns = list(joints) if given == ALL else given
    index, scale, offset = [], [], []
    for column in columns:
        match column:
            case None:
                index.append(-1)
                scale.append(1.0)
                offset.append(0.0)
            case Column():
                index.append(_place(column.joint, joints, where, wrong))
                scale.append(column.scale)
                offset.append(column.offset)
                if column.scale == 0:
                    wrong.append(f"{where}.{column.joint}.scale: expected anything but 0")
            case _:
                index.append(_place(column, joints, where, wrong))
                scale.append(1.0)
                offset.append(0.0)
    return Bound(np.array(index, np.int64), np.array(scale), np.array(offset))


def _place(name: str, joints: Sequence[str], where: str, wrong: list[str]) -> int:
    if name in joints:
        return list(joints).index(name)
    wrong.append(f"{where}: expected one of {', '.join(joints)}, found {name!r}")
    return -1
