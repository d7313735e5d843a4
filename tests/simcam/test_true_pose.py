import numpy as np
import pytest

from recd.daemon.sim.jpeg import JpegEncoder
from recd.daemon.sim.launch import running
from recd.daemon.sim.pose import ArmPose, PoseHistory
from recd.daemon.sim.render import Renderer
from recd.daemon.sim.stamp import STAMP_HEIGHT_PX, read_stamp
from tests.simcam.conftest import SimProcess
from tests.simcam.test_camera_server import Part, watching


@pytest.mark.parametrize("view", ["front", "wrist"])
def test_a_picture_shows_the_simulated_arm_where_it_was_at_the_stamped_time(tmp_path, view):
    with running(tmp_path / "sim", pairs=["main"]) as robot:
        pose_path = str(robot.directory / "pose.bin")
        sim = SimProcess(
            "--camera", f"{view}:320x240@30", "--pose", pose_path, "--arm", "main.leader"
        )
        try:
            with watching(sim.port(view)) as client:
                parts = client.parts(40)[::5]
            pose = ArmPose(PoseHistory(pose_path), "main.leader")
            easel = Renderer(320, 240, view=view, camera=0, subsampling=(2, 2))
            redrawn = [_redraw(easel, pose, part) for part in parts]
        finally:
            assert sim.stop() == 0
    wrong = [
        _wrong_share(part.picture(), truth) for part, truth in zip(parts, redrawn, strict=True)
    ]
    # On a busy computer a picture may be drawn before the pose of its time has been written.
    assert np.median(wrong) < 0.001, wrong


def _wrong_share(shown: np.ndarray, truth: np.ndarray) -> float:
    off = np.abs(shown[STAMP_HEIGHT_PX:].astype(int) - truth[STAMP_HEIGHT_PX:])
    return float((off.max(axis=2) > 24).mean())


def _redraw(easel: Renderer, pose: ArmPose, part: Part) -> np.ndarray:
    stamp = read_stamp(part.picture())
    encoder = JpegEncoder(320, 240)
    easel.draw(encoder.planes, pose, frame=stamp.frame, t_capture_ns=stamp.t_capture_ns)
    return Part(0, 0, encoder.encode(), 0).picture()
