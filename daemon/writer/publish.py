"""From a sealed episode to a dataset episode: rows, videos, manifest, verdict, commit."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recd.config.errors import DatasetError
from recd.config.models import RobotConfig
from recd.daemon.dataset import (
    Camera,
    CameraHistogram,
    CodecPins,
    DatasetSchema,
    DatasetStore,
    EpisodeRows,
    VideoFile,
)
from recd.daemon.session import verdict
from recd.daemon.session.summary import EpisodeSummary
from recd.daemon.writer.episode import Episode
from recd.daemon.writer.rows import Bus, PairRows, align_pair, bus_of
from recd.daemon.writer.summary import bus_summary, camera_summary
from recd.shm.clock import NS_PER_S, wall_iso


def dataset_schema(robot: RobotConfig) -> DatasetSchema:
    """What this robot records, as the dataset must have it."""
    cameras = []
    for name, camera in robot.cameras.items():
        turned = camera.rotation in (90, 270)
        height, width = camera.height, camera.width
        cameras.append(Camera(name, *((width, height) if turned else (height, width))))
    return DatasetSchema.for_robot(
        robot.robot_type,
        fps=robot.dataset.fps,
        cameras=cameras,
        state_names=robot.feature_joints(),
        action_names=robot.feature_joints(),
        use_videos=robot.dataset.video,
        columns=robot.dataset.columns,
    )


class Publisher:
    """Publishes, discards and takes back episodes of one dataset."""

    def __init__(self, robot: RobotConfig, store: DatasetStore) -> None:
        self._robot = robot
        self._store = store
        config = json.dumps(robot.model_dump(mode="json"), sort_keys=True)
        self._config_sha256 = hashlib.sha256(config.encode()).hexdigest()
        self._buses = [self._bus(pair) for pair in robot.arms]

    def _bus(self, pair: str) -> Bus:
        arm = self._robot.arms[pair]
        return bus_of(
            pair,
            joints=self._robot.joints(pair),
            rate_hz=arm.rate_hz,
            degrees=arm.use_degrees,
            action=self._robot.dataset.action,
        )

    def facts(self) -> dict[str, Any]:
        """What the supervisor needs to know of the dataset: totals and pinned codecs."""
        pins = {
            key.removeprefix("observation.images."): {
                "vcodec": pin.codec, "pix_fmt": pin.pix_fmt, "g": pin.g, "crf": pin.crf,
                "preset": pin.preset,
            }
            for key, pin in self._store.pins.items()
        }  # fmt: skip
        return {"totals": self._totals(), "pins": pins}

    def _totals(self) -> dict[str, Any]:
        totals = self._store.totals
        return {"episodes": totals.episodes, "rows": totals.rows, "tasks": totals.tasks}

    def publish(self, episode: Episode) -> dict[str, Any]:
        """Commit a sealed episode; durable on return. DatasetError when it cannot be."""
        assert episode.seal is not None
        assert episode.rows is not None
        ticks = {name: self._ticks(episode, name) for name in self._robot.cameras}
        pairs = [self._align(episode, bus) for bus in self._buses]
        summary = self._summary(episode, ticks, pairs)
        judged = verdict.judge(summary)
        manifest = self._manifest(episode, summary, judged)
        result = self._store.commit(
            episode.uid,
            self._rows(episode, ticks, pairs),
            self._videos(episode),
            manifest=manifest,
            sides=[Path(p) for c in episode.seal["cameras"].values() for p in c["thumbnails"]],
        )
        return {
            "uid": episode.uid,
            "episode_index": result.episode_index,
            "rows": episode.rows,
            "duration_ns": episode.rows * NS_PER_S * episode.rate_den // episode.rate_num,
            "summary": summary.to_dict(),
            "verdict": judged.to_dict(),
            "totals": self._totals(),
        }

    def _ticks(self, episode: Episode, camera: str) -> Any:
        records = episode.ticks_of(camera)
        if len(records) < (episode.rows or 0):
            why = (episode.seal or {}).get("failed", {}).get(camera, "its encoder did not tell why")
            raise DatasetError(
                f"camera {camera}: {len(records)} of {episode.rows} rows were encoded: {why}",
                mend="The episode stays in staging; recctl recover cuts it to what is whole.",
            )
        return records[: episode.rows]

    def _align(self, episode: Episode, bus: Bus) -> PairRows:
        samples = episode.tracks[f"arm.{bus.pair}.follower"].array()
        grid = np.array([episode.tick_ns(k) for k in range(episode.rows or 0)], np.int64)
        return align_pair(samples, grid, bus)

    def _rows(
        self, episode: Episode, ticks: Mapping[str, Any], pairs: list[PairRows]
    ) -> EpisodeRows:
        task = str((episode.seal or {}).get("task") or self._robot.dataset.task)
        extra = {}
        if self._store.schema.columns == "full":
            extra = _own_columns(episode, ticks, pairs)
        return EpisodeRows(
            state=np.hstack([pair.state_values for pair in pairs]),
            action=np.hstack([pair.action_values for pair in pairs]),
            task=[task] * (episode.rows or 0),
            extra=extra,
        )

    def _videos(self, episode: Episode) -> dict[str, VideoFile]:
        videos = {}
        for name, closed in (episode.seal or {})["cameras"].items():
            histogram = closed["statistics"]
            videos[f"observation.images.{name}"] = VideoFile(
                path=Path(closed["path"]),
                packets=int(closed["packets"]),
                pins=CodecPins(**closed["pins"]),
                histogram=CameraHistogram(
                    int(histogram["count"]),
                    np.frombuffer(histogram["hist"], np.uint64).reshape(3, 256),
                ),
                sha256=closed.get("sha256", ""),
            )
        return videos

    def _summary(
        self, episode: Episode, ticks: Mapping[str, Any], pairs: list[PairRows]
    ) -> EpisodeSummary:
        fps, rows = episode.fps, episode.rows or 0
        seal = episode.seal or {}
        cameras = {
            name: camera_summary(
                records,
                fps=fps,
                camera_fps=min(self._robot.cameras[name].fps, 1e6),
                lost=int(seal["cameras"].get(name, {}).get("counts", {}).get("lost", 0)),
            )
            for name, records in ticks.items()
        }
        buses = {}
        for bus, aligned in zip(self._buses, pairs, strict=True):
            for side, track in self._sides(episode, bus.pair):
                samples = track.array()
                inside = samples[samples["request_ns"] >= episode.t0_ns]
                valid = aligned.state.valid if side == "follower" else np.ones((0, 1), bool)
                buses[f"{bus.pair}.{side}"] = bus_summary(
                    inside, valid_rows=valid, joints=bus.joints, fps=fps, t0_ns=episode.t0_ns,
                    recorded=side == "follower",
                )  # fmt: skip
        return EpisodeSummary(
            duration_s=rows / fps, rows=rows, fps=fps, cameras=cameras, buses=buses,
            restarts=seal.get("restarts", {}), fault=_fault_of(seal),
        )  # fmt: skip

    def _sides(self, episode: Episode, pair: str) -> list[tuple[str, Any]]:
        return [
            (side, episode.tracks[f"arm.{pair}.{side}"])
            for side in ("leader", "follower")
            if f"arm.{pair}.{side}" in episode.tracks
        ]

    def _manifest(
        self, episode: Episode, summary: EpisodeSummary, judged: verdict.Verdict
    ) -> dict[str, Any]:
        seal = episode.seal or {}
        begin, end = episode.clocks[0], episode.clocks[-1]
        return {
            "station": self._robot.station,
            "operator": seal.get("operator") or self._robot.operator,
            "robot": {"name": self._robot.name, "type": self._robot.robot_type},
            "devices": {n: c.get("device", {}) for n, c in seal.get("cameras", {}).items()},
            "config_sha256": self._config_sha256,
            "streams": summary.to_dict(),
            "restarts": dict(summary.restarts),
            "codec": {n: c.get("pins", {}) for n, c in seal.get("cameras", {}).items()},
            "end_reason": seal.get("end_reason", ""),
            "marks": seal.get("marks", []),
            "verdict": judged.to_dict(),
            "t0_ns": episode.t0_ns,
            "clock": {
                "begin": {"mono_ns": begin.mono_ns, "wall": wall_iso(begin.real_ns)},
                "end": {"mono_ns": end.mono_ns, "wall": wall_iso(end.real_ns)},
                "pairs": [[c.mono_ns, c.real_ns, c.uncertainty_ns] for c in episode.clocks],
            },
        }

    def discard(self, episode: Episode) -> None:
        """Put an episode that was never published into the trash."""
        self._store.discard(episode.uid)

    def undo(self, uid: str) -> dict[str, Any]:
        """Take the newest episode back out of the dataset, into the trash."""
        self._store.undo(uid)
        return {"totals": self._totals()}

    def undelete(self, uid: str) -> dict[str, Any]:
        """Bring a take back from the trash as the newest episode."""
        result = self._store.undelete(uid)
        return {"totals": self._totals(), "episode_index": result.episode_index}


def _fault_of(seal: Mapping[str, Any]) -> str:
    reason = str(seal.get("end_reason", ""))
    return reason if reason not in ("stop", "", "time", "plan") else ""


def _own_columns(
    episode: Episode, ticks: Mapping[str, Any], pairs: list[PairRows]
) -> dict[str, Any]:
    """Columns of `columns: full` that teleoperation fills; the others keep their unused value."""

    def per_camera(field: str) -> np.ndarray[Any, Any]:
        return np.stack([records[field] for records in ticks.values()], axis=1).astype(np.int64)

    rows = episode.rows or 0
    columns: dict[str, Any] = {
        "recd.state_error_ns": _furthest(pair.state.error_ns for pair in pairs),
        "recd.state_valid": np.hstack([pair.state.valid for pair in pairs]),
        "recd.state_source": pairs[0].state.source[:, 0],
        "recd.action_error_ns": _furthest(pair.action.error_ns for pair in pairs),
        "recd.action_valid": np.hstack([pair.action.valid for pair in pairs]),
        "recd.action_source": pairs[0].action.source[:, 0],
        "recd.control_source": pairs[0].control_source,
        "recd.intervention": np.zeros(rows, bool),
        "recd.episode_uid": [episode.uid] * rows,
    }
    if ticks:
        columns |= {
            "recd.camera_error_ns": per_camera("error_ns"),
            "recd.camera_source": per_camera("source_seq"),
            "recd.camera_flags": per_camera("flags"),
        }
    return columns


def _furthest(errors_ns: Iterable[Any]) -> Any:
    """Per row the error with the largest magnitude, sign kept; int64 [R]."""
    all_ns = np.hstack(list(errors_ns))
    return np.take_along_axis(all_ns, np.abs(all_ns).argmax(axis=1)[:, None], axis=1)[:, 0]
