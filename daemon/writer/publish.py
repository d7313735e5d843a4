"""From a sealed episode to a dataset episode: rows, videos, manifest, verdict, commit."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recd.config.errors import DatasetError
from recd.config.models import RobotConfig
from recd.daemon.dataset import (
    Camera,
    CameraHistogram,
    CodecPins,
    CommitResult,
    DatasetSchema,
    DatasetStore,
    EpisodeRows,
    Pictures,
    VideoFile,
)
from recd.daemon.session import verdict
from recd.daemon.session.summary import BusSummary, CameraSummary, EpisodeSummary
from recd.daemon.supervisor.takes import fault_of
from recd.daemon.writer.arms import (
    arm_devices,
    calibration_digests,
    calibration_key,
    calibrations_in_use,
    calibrations_of_files,
    sha256_of_config,
)
from recd.daemon.writer.builder import RowBuilder
from recd.daemon.writer.episode import Ahead, Episode
from recd.daemon.writer.summary import bus_summary, camera_summary
from recd.shm.clock import NS_PER_S, wall_iso

NO_ROWS = np.ones((0, 1), bool)
"""Validity of a bus that gives the dataset no values."""


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
        pairs=tuple(robot.arms),
    )


class Publisher:
    """Publishes, discards and takes back episodes of one dataset."""

    def __init__(self, robot: RobotConfig, store: DatasetStore) -> None:
        self._robot = robot
        self._store = store
        self._accept = robot.dataset.accept_calibration
        self._config_sha256 = sha256_of_config(robot)
        self._arm_sha256 = {pair: sha256_of_config(arm) for pair, arm in robot.arms.items()}

    def check_calibrations(self, runtime_dir: str) -> Mapping[str, list[str]]:
        """Refuse arms calibrated otherwise than the dataset's episodes, unless that is accepted.

        Returns the accepted changes: arm -> sha256 of the earlier ones.
        """
        present = calibrations_of_files(self._robot, runtime_dir)
        return self._store.calibration_changes(present, accept=self._accept)

    def facts(self) -> dict[str, Any]:
        """What the supervisor needs to know of the dataset: totals, size and pinned codecs."""
        pins = {
            key.removeprefix("observation.images."): {
                "vcodec": pin.codec, "pix_fmt": pin.pix_fmt, "g": pin.g, "crf": pin.crf,
                "preset": pin.preset,
            }
            for key, pin in self._store.pins.items()
        }  # fmt: skip
        return {
            "totals": self._totals(), "bytes": self._nbytes(), "pins": pins,
            "calibrations": self._calibrations(),
        }  # fmt: skip

    def _calibrations(self) -> dict[str, list[str]]:
        """bus -> sha256 of the calibrations it may attach with; {} for any."""
        if self._accept:
            return {}
        known = self._store.known_calibrations()
        keys = {bus: calibration_key(self._robot, bus) for bus in self._robot.buses()}
        return {bus: known[key] for bus, key in keys.items() if key in known}

    def _nbytes(self) -> int:
        """Of rows and pictures; what an edit leaves behind or begins is not counted."""
        folders = (self._store.root / name for name in ("data", "videos"))
        return sum(
            os.stat(f"{inside}/{name}").st_size
            for folder in folders
            for inside, _, names in os.walk(folder)
            for name in names
            if name.startswith("file-")
        )

    def _totals(self) -> dict[str, Any]:
        totals = self._store.totals
        return {"episodes": totals.episodes, "rows": totals.rows, "tasks": totals.tasks}

    def publish(
        self, episode: Episode, builder: RowBuilder, tell: Callable[[Mapping[str, Any]], None]
    ) -> None:
        """Commit a sealed episode; `tell` gets what became of it as soon as it is durable.

        DatasetError when it cannot be.
        """
        assert episode.seal is not None
        assert episode.rows is not None
        self._check_rows(episode)
        builder.extend(episode.rows)
        ahead = episode.ahead or self.prepare(episode, builder)
        summary = self._summary(episode, ahead)
        judged = verdict.judge(summary)
        told: dict[str, Any] = {
            "uid": episode.uid,
            "rows": episode.rows,
            "duration_ns": episode.rows * NS_PER_S * episode.rate_den // episode.rate_num,
            "summary": summary.to_dict(),
            "verdict": judged.to_dict(),
        }

        def story() -> dict[str, Any]:
            builder.close(durable=False)  # the commit syncs all files of the episode
            episode.close_logs(durable=False)
            manifest = self._manifest(episode, summary, judged)
            return manifest | self._keep_calibrations(episode)

        def durable(result: CommitResult) -> None:
            tell({
                **told, "episode_index": result.episode_index, "totals": self._totals(),
                "calibrations": self._calibrations(),
            })  # fmt: skip

        self._store.commit(
            episode.uid,
            replace(ahead.rows, images=images) if (images := self._images(episode)) else ahead.rows,
            self._videos(episode),
            manifest=story,
            sides=[Path(p) for c in episode.seal["cameras"].values() for p in c["thumbnails"]],
            written=ahead.written,
            tell=durable,
        )

    def prepare(self, episode: Episode, builder: RowBuilder) -> Ahead:
        """What the rows of an episode alone decide, all of them being built. OSError of the disk.

        While encoders close their files this costs no time: 10 ms of a stop, of a minute's episode.
        """
        rows = self._rows(builder)
        pictures = self._store.schema.image_keys
        return Ahead(
            rows=rows,
            buses=self.summarize_buses(episode, builder),
            cameras={name: self._camera_summary(episode, name) for name in self._robot.cameras},
            written=None if pictures else self._store.write_rows(episode.uid, rows),
        )

    def _keep_calibrations(self, episode: Episode) -> dict[str, Any]:
        """Let the dataset know the arms' calibrations; what of them is a change, for the manifest.

        An arm that came back with another one inside the episode did so unaccepted.
        """
        used = calibrations_in_use(self._robot, (episode.seal or {}).get("arms", {}))
        changes = dict(self._store.calibration_changes(used, accept=True))
        if changes and not self._accept:
            return {"calibration_changed": changes}
        self._store.keep_calibrations(used)
        return {"calibration_accepted": changes} if changes else {}

    def _check_rows(self, episode: Episode) -> None:
        for camera in self._robot.cameras:
            have = len(episode.tracks[f"ticks.{camera}"].records)
            if have < (episode.rows or 0):
                failed = (episode.seal or {}).get("failed", {})
                raise DatasetError(
                    f"camera {camera}: {have} of {episode.rows} rows were encoded: "
                    f"{failed.get(camera, 'its encoder did not tell why')}",
                    mend="The episode stays in staging; recctl recover cuts it to what is whole.",
                )

    def _rows(self, builder: RowBuilder) -> EpisodeRows:
        blocks = builder.blocks
        shown = self._store.schema.extra_keys
        own = [name for name in blocks[0].extra if name in shown]
        extra: dict[str, Any] = {
            name: np.concatenate([block.extra[name] for block in blocks]) for name in own
        }
        if own:
            extra["recd.episode_uid"] = [builder.uid] * builder.rows
        return EpisodeRows(
            state=np.concatenate([block.state for block in blocks]),
            action=np.concatenate([block.action for block in blocks]),
            task=[task for block in blocks for task in block.task],
            extra=extra,
        )

    def _images(self, episode: Episode) -> dict[str, Pictures]:
        found = {
            f"observation.images.{name}": closed
            for name, closed in (episode.seal or {})["cameras"].items()
            if closed["kind"] == "images"
        }
        if not found:
            return {}
        # Brings PyAV along: 20 MB that a dataset of videos needs in its encoders alone.
        from recd.daemon.encode.images import read_pictures

        return {
            key: Pictures(read_pictures(Path(closed["path"])), _histogram(closed))
            for key, closed in found.items()
        }

    def _videos(self, episode: Episode) -> dict[str, VideoFile]:
        videos = {}
        for name, closed in (episode.seal or {})["cameras"].items():
            if closed["kind"] != "video":
                continue
            videos[f"observation.images.{name}"] = VideoFile(
                path=Path(closed["path"]),
                packets=int(closed["packets"]),
                pins=CodecPins(**closed["pins"]),
                histogram=_histogram(closed),
                # A commit that was killed half-way may have changed the file (decoding delay).
                digest="" if (episode.seal or {}).get("resume") else closed.get("digest", ""),
            )
        return videos

    def _camera_summary(self, episode: Episode, name: str, *, lost: int = 0) -> CameraSummary:
        """Figures of a camera of an episode whose rows are all there. lost: frames."""
        return camera_summary(
            episode.ticks_of(name, 0, episode.rows or 0),
            fps=episode.fps, camera_fps=self._robot.cameras[name].fps, lost=lost,
        )  # fmt: skip

    def _summary(self, episode: Episode, ahead: Ahead) -> EpisodeSummary:
        fps, rows = episode.fps, episode.rows or 0
        seal = episode.seal or {}
        cameras = dict(ahead.cameras)
        for name in cameras:
            if lost := int(seal["cameras"].get(name, {}).get("counts", {}).get("lost", 0)):
                cameras[name] = self._camera_summary(episode, name, lost=lost)
        return EpisodeSummary(
            duration_s=rows / fps, rows=rows, fps=fps, cameras=cameras,
            buses=ahead.buses,
            restarts=seal.get("restarts", {}), fault=fault_of(str(seal.get("end_reason", ""))),
        )  # fmt: skip

    def summarize_buses(self, episode: Episode, builder: RowBuilder) -> dict[str, BusSummary]:
        """Figures of every arm bus of an episode whose rows are built: bus -> summary."""
        valid, buses, first = np.concatenate(builder.state_valid), {}, 0
        for pair in self._robot.arms:
            joints = self._robot.joints(pair)
            for side, track in self._sides(episode, pair):
                samples = track.records[:]
                recorded = side == "follower"
                buses[f"{pair}.{side}"] = bus_summary(
                    samples[np.searchsorted(samples["request_ns"], episode.t0_ns) :],
                    valid_rows=valid[:, first : first + len(joints)] if recorded else NO_ROWS,
                    joints=joints, fps=episode.fps, t0_ns=episode.t0_ns, recorded=recorded,
                )  # fmt: skip
            first += len(joints)
        return buses

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
            "devices": {
                **{n: c.get("device", {}) for n, c in seal.get("cameras", {}).items()},
                **arm_devices(seal.get("arms", {})),
            },
            "config_sha256": self._config_sha256,
            "arm_config_sha256": self._arm_sha256,
            "calibration_sha256": calibration_digests(seal.get("arms", {})),
            "streams": summary.to_dict(),
            "restarts": dict(summary.restarts),
            "codec": {n: c.get("pins", {}) for n, c in seal.get("cameras", {}).items()},
            "end_reason": seal.get("end_reason", ""),
            "marks": seal.get("marks", []),
            "outcome": outcome(seal.get("marks", [])) or None,
            "policy": episode.chunks.describe(
                episode.t0_ns, episode.t0_ns + round(summary.duration_s * NS_PER_S)
            ),
            "commanded": seal.get("commanded") or None,
            **dict(seal.get("notes") or {}),
            "verdict": judged.to_dict(),
            "t0_ns": episode.t0_ns,
            "clock": {
                "begin": {"mono_ns": begin.mono_ns, "wall": wall_iso(begin.real_ns)},
                "end": {"mono_ns": end.mono_ns, "wall": wall_iso(end.real_ns)},
                "pairs": [[c.mono_ns, c.real_ns, c.uncertainty_ns] for c in episode.clocks],
            },
        }

    def published(self, uid: str) -> dict[str, Any] | None:
        """What the dataset holds of episode `uid`, as `publish` tells it; None when it has none."""
        found = next((facts for facts in self._store.episodes() if facts.uid == uid), None)
        if found is None:
            return None
        return {
            "uid": uid,
            "episode_index": found.episode_index,
            "rows": found.length,
            "duration_ns": found.length * NS_PER_S // self._robot.dataset.fps,
            "totals": self._totals(),
        }

    def discard(self, episode: Episode) -> None:
        """Put an episode that was never published into the trash."""
        self._store.discard(episode.uid, rows=episode.rows or 0)

    def undo(self, uid: str) -> dict[str, Any]:
        """Take the newest episode back out of the dataset, into the trash."""
        self._store.undo(uid)
        return {"totals": self._totals()}

    def undelete(self, uid: str) -> dict[str, Any]:
        """Bring a take back from the trash as the newest episode."""
        result = self._store.undelete(uid)
        return {"totals": self._totals(), "episode_index": result.episode_index}


def outcome(marks: Sequence[Mapping[str, Any]]) -> str:
    """What a person said last of the attempt: success, fail, or nothing."""
    said = [mark["label"] for mark in marks if mark["label"] in ("success", "fail")]
    return str(said[-1]) if said else ""


def _histogram(closed: Mapping[str, Any]) -> CameraHistogram:
    told = closed["statistics"]
    counts = np.frombuffer(told["hist"], np.uint64).reshape(3, 256)
    return CameraHistogram(int(told["count"]), counts)
