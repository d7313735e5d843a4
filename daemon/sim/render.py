"""Pictures of the simulated arm, drawn straight into full-range YUV planes, numpy only.

A viewpoint's table and wall are ray-cast once; a frame costs a copy of them and one small box per
limb. Solid shading and shadows, no occlusion finer than whole limbs.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recd.daemon.sim.figure import Colour, Hand, Limb, Point, PoseSource, arm_limbs, ball
from recd.daemon.sim.stamp import STAMP_HEIGHT_PX, STAMP_WIDTH_PX, Stamp, draw_stamp

Plane = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_BACKDROPS = 3  # copies with different grain, taken in turn: a still scene is never bit-identical
_GRAIN_STEPS = 2.0
_WRIST_MARGIN = 1.5  # the wrist camera's table is this much larger than its picture
_BLACK_LUMA = 4


@dataclass(frozen=True, slots=True)
class View:
    """A viewpoint: eye and target in metres, field of view across the picture in radians."""

    eye: Point
    target: Point
    field_rad: float


VIEWS: dict[str, View] = {
    "front": View((0.62, 0.30, 0.38), (0.12, 0.0, 0.10), 0.85),
    "top": View((0.13, 0.0, 0.80), (0.17, 0.0, 0.0), 0.80),
    "side": View((0.15, -0.66, 0.30), (0.13, 0.0, 0.11), 0.85),
}
WRIST = "wrist"
"""Views with this word in their name ride on the hand; every other one stands still."""


def view_of(name: str) -> View:
    """The viewpoint called `name`; an unknown name gets one of its own, always the same."""
    if name in VIEWS:
        return VIEWS[name]
    turn = 2 * math.pi * (zlib.crc32(name.encode()) % 360) / 360
    return View((0.14 + 0.6 * math.cos(turn), 0.6 * math.sin(turn), 0.4), (0.13, 0.0, 0.08), 0.85)


class Renderer:
    """Draws one camera. Holds its viewpoint's backdrops and scratch, about 4 bytes a pixel.

    subsampling: (horizontal, vertical) divisors of the chroma planes, (2, 2) for 4:2:0.
    """

    def __init__(
        self, width: int, height: int, *, view: str, camera: int, subsampling: tuple[int, int]
    ) -> None:
        self.width, self.height, self.camera = width, height, camera
        self._sub = subsampling
        self._wrist = WRIST in view
        self._lens = _Lens(view_of("top" if self._wrist else view), width, height)
        scale = _WRIST_MARGIN if self._wrist else 1.0
        table = _Lens(self._lens.view, _even(width * scale), _even(height * scale))
        self._backdrops = _backdrops(table, subsampling, seed=zlib.crc32(view.encode()))
        self._xs = np.arange(width, dtype=np.float32) + 0.5
        self._ys = np.arange(height, dtype=np.float32)[:, None] + 0.5

    def draw(
        self, planes: Sequence[Plane], pose: PoseSource, *, frame: int, t_capture_ns: int
    ) -> None:
        """Fill planes Y, U, V (uint8, full range) with the scene at `t_capture_ns`, stamped."""
        limbs, hand = arm_limbs(pose.pose_at(t_capture_ns))
        if self._wrist:
            self._draw_from_wrist(planes, hand, frame)
        else:
            self._copy_backdrop(planes, frame, 0, 0)
            self._draw_from_tripod(planes, [*limbs, ball(t_capture_ns)])
        self._draw_stamp(planes, frame, t_capture_ns)

    def draw_black(self, planes: Sequence[Plane], *, frame: int) -> None:
        """Behind a lens cap: black with a trace of noise, unstamped, no two frames equal."""
        top = 8 * (frame % (self.height // 8))
        planes[0][...] = _BLACK_LUMA
        planes[0][top : top + 8] += 3
        planes[1][...] = 128
        planes[2][...] = 128

    def _draw_stamp(self, planes: Sequence[Plane], frame: int, t_capture_ns: int) -> None:
        stamp = Stamp(self.camera, frame % 2**32, (t_capture_ns // 1000) % 2**48)
        draw_stamp(planes[0], stamp)
        across, down = self._sub
        for plane in planes[1:]:
            plane[: STAMP_HEIGHT_PX // down, : STAMP_WIDTH_PX // across] = 128

    def _copy_backdrop(self, planes: Sequence[Plane], frame: int, left: int, top: int) -> None:
        across, down = self._sub
        for plane, source, dx, dy in zip(
            planes,
            self._backdrops[frame % _BACKDROPS],
            (1, across, across),
            (1, down, down),
            strict=True,
        ):
            height, width = plane.shape
            plane[...] = source[top // dy : top // dy + height, left // dx : left // dx + width]

    def _draw_from_tripod(self, planes: Sequence[Plane], limbs: list[Limb]) -> None:
        for limb in limbs:
            if limb.shadow:
                self._shade(planes[0], limb)
        for limb in sorted(limbs, key=self._lens.depth_of, reverse=True):
            start, end = self._lens.project(limb.start), self._lens.project(limb.end)
            if start is None or end is None:
                continue
            (ax, ay, a_scale), (bx, by, b_scale) = start, end
            radii = limb.start_radius_m * a_scale, limb.end_radius_m * b_scale
            self._rod(planes, (ax, ay), (bx, by), radii, limb.colour)

    def _draw_from_wrist(self, planes: Sequence[Plane], hand: Hand, frame: int) -> None:
        """The table glides by beneath, the jaws stay in front of the lens."""
        spare_x = self._backdrops[0][0].shape[1] - self.width
        spare_y = self._backdrops[0][0].shape[0] - self.height
        left = _clamped_even(spare_x * (0.5 + 0.6 * hand.pan_rad / math.pi), spare_x)
        top = _clamped_even(spare_y * (0.5 - 1.6 * (hand.tip[0] - 0.2)), spare_y)
        self._copy_backdrop(planes, frame, left, top)
        w, h = float(self.width), float(self.height)
        swing = 0.03 + 0.14 * max(0.0, min(hand.gap_rad, 2.3))
        lean = 0.05 * math.sin(hand.roll_rad)
        thick = 0.045 * w, 0.028 * w
        floor = h * 1.02
        self._rod(planes, (0.45 * w, floor), ((0.47 + lean) * w, 0.5 * h), thick, (206, 126, 130))
        self._rod(
            planes, (0.55 * w, floor), ((0.51 + lean + swing) * w, 0.5 * h), thick, (84, 130, 126)
        )

    def _box(self, a: Sequence[float], b: Sequence[float], reach: float) -> tuple[int, ...] | None:
        """The pixels a rod can touch, on even borders, or None when it is out of the picture."""
        x0 = max(0, int(min(a[0], b[0]) - reach)) & ~1
        y0 = max(0, int(min(a[1], b[1]) - reach)) & ~1
        x1 = min(self.width, int(max(a[0], b[0]) + reach) + 3 & ~1)
        y1 = min(self.height, int(max(a[1], b[1]) + reach) + 3 & ~1)
        return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None

    def _depth(
        self,
        a: tuple[float, float],
        b: tuple[float, float],
        radii: tuple[float, float],
        box: tuple[int, ...],
    ) -> Floats:
        """1 on the axis of the rod, 0 at its rim, negative outside."""
        x0, y0, x1, y1 = box
        px, py = self._xs[x0:x1] - np.float32(a[0]), self._ys[y0:y1] - np.float32(a[1])
        dx, dy = b[0] - a[0], b[1] - a[1]
        per_length = 1.0 / max(dx * dx + dy * dy, 1e-6)
        along = px * np.float32(dx * per_length) + py * np.float32(dy * per_length)
        np.clip(along, 0.0, 1.0, out=along)
        away_x = px - along * np.float32(dx)
        away_y = py - along * np.float32(dy)
        np.multiply(away_x, away_x, out=away_x)
        np.multiply(away_y, away_y, out=away_y)
        away_x += away_y
        if radii[0] == radii[1]:
            away_x *= np.float32(1.0 / (radii[0] * radii[0]))
        else:
            along *= np.float32(radii[1] - radii[0])
            along += np.float32(radii[0])
            along *= along
            away_x /= along
        return np.subtract(np.float32(1.0), away_x, out=away_x)

    def _rod(
        self,
        planes: Sequence[Plane],
        a: tuple[float, float],
        b: tuple[float, float],
        radii: tuple[float, float],
        colour: Colour,
    ) -> None:
        box = self._box(a, b, max(radii))
        if box is None:
            return
        x0, y0, x1, y1 = box
        depth = self._depth(a, b, radii, box)
        inside = depth > 0
        across, down = self._sub
        for plane, value in zip(planes[1:], colour[1:], strict=True):
            part = plane[y0 // down : y1 // down, x0 // across : x1 // across]
            np.copyto(part, np.uint8(value), where=inside[::down, ::across])
        luma = colour[0]
        np.multiply(depth, np.float32(luma * 0.55), out=depth)  # round: bright axis, dark rim
        depth += np.float32(luma * 0.55)
        np.copyto(planes[0][y0:y1, x0:x1], depth, where=inside, casting="unsafe")

    def _shade(self, luma: Plane, limb: Limb) -> None:
        """The shadow that falls straight down on the table."""
        start = self._lens.project((limb.start[0], limb.start[1], 0.0))
        end = self._lens.project((limb.end[0], limb.end[1], 0.0))
        if start is None or end is None:
            return
        radius = limb.start_radius_m * start[2]
        a, b = (start[0], start[1]), (end[0], end[1])
        box = self._box(a, b, radius)
        if box is None:
            return
        x0, y0, x1, y1 = box
        inside = self._depth(a, b, (radius, radius), box) > 0
        part = luma[y0:y1, x0:x1]
        np.copyto(part, part - (part >> 2), where=inside)


class _Lens:
    """A pinhole: world metres to pixels of one picture size."""

    def __init__(self, view: View, width: int, height: int) -> None:
        self.view, self.width, self.height = view, width, height
        eye, target = np.array(view.eye), np.array(view.target)
        forward = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        self.axes = np.stack((right, np.cross(forward, right), forward))  # right, down, forward
        self._rows = [tuple(float(v) for v in axis) for axis in self.axes]
        self.focal_px = width / 2 / math.tan(view.field_rad / 2)

    def project(self, point: Point) -> tuple[float, float, float] | None:
        """(x, y, pixels per metre) of a point, or None when it lies behind the lens."""
        x, y, z = self._camera(point)
        if z < 0.02:
            return None
        scale = self.focal_px / z
        return self.width / 2 + x * scale, self.height / 2 + y * scale, scale

    def depth_of(self, limb: Limb) -> float:
        """Distance of the middle of a limb along the optical axis, metres."""
        return (self._camera(limb.start)[2] + self._camera(limb.end)[2]) / 2

    def _camera(self, point: Point) -> tuple[float, float, float]:
        ex, ey, ez = self.view.eye
        x, y, z = point[0] - ex, point[1] - ey, point[2] - ez
        right, down, forward = (a * x + b * y + c * z for a, b, c in self._rows)
        return right, down, forward


def _backdrops(lens: _Lens, subsampling: tuple[int, int], *, seed: int) -> list[list[Plane]]:
    """The empty scene, `_BACKDROPS` times with different grain, as Y, U, V planes."""
    luma, u, v = _table_and_wall(lens)
    across, down = subsampling
    chroma = [np.clip(p[::down, ::across], 0, 255).astype(np.uint8) for p in (u, v)]
    rng = np.random.default_rng(seed)
    scenes = []
    for _ in range(_BACKDROPS):
        grain = rng.normal(0.0, _GRAIN_STEPS, luma.shape).astype(np.float32)
        scenes.append([np.clip(luma + grain, 0, 255).astype(np.uint8), *chroma])
    return scenes


def _table_and_wall(lens: _Lens) -> tuple[Floats, Floats, Floats]:
    """Ray-cast a wooden table with a mat and, above its far edge, a plain wall."""
    x = (np.arange(lens.width) + 0.5 - lens.width / 2) / lens.focal_px
    y = (np.arange(lens.height)[:, None] + 0.5 - lens.height / 2) / lens.focal_px
    right, down, forward = lens.axes
    rays = [right[i] * x + down[i] * y + forward[i] for i in range(3)]
    eye = lens.view.eye
    with np.errstate(divide="ignore"):
        reach = np.where(rays[2] < -1e-3, -eye[2] / np.minimum(rays[2], -1e-3), np.inf)
    reach = np.minimum(reach, 50.0)
    table_x, table_y = eye[0] + reach * rays[0], eye[1] + reach * rays[1]
    on_table = (np.abs(table_x - 0.1) < 0.55) & (np.abs(table_y) < 0.75)
    on_mat = (np.abs(table_x - 0.2) < 0.19) & (np.abs(table_y) < 0.24)
    plank = np.floor(table_y / 0.11)
    wood = 150 + 14 * np.sin(plank * 37.0) + 7 * np.sin(table_x * 190 + 3 * np.sin(table_y * 60))
    checks = (np.floor(table_x / 0.04) + np.floor(table_y / 0.04)) % 2
    luma = np.where(on_table, wood, 196 + 40 * rays[2])
    luma = np.where(on_mat, 92 + 26 * checks, luma)
    u = np.where(on_mat, 144, np.where(on_table, 104, 132))
    v = np.where(on_mat, 112, np.where(on_table, 148, 124))
    return luma.astype(np.float32), u.astype(np.float32), v.astype(np.float32)


def _even(value: float) -> int:
    return int(value) & ~1


def _clamped_even(value: float, limit: int) -> int:
    return max(0, min(int(value), limit)) & ~1
