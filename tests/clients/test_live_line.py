import click
import pytest

from recd.clients.recctl.record import fitting
from recd.clients.recctl.show import frames_lost, plan_parts

PLAN = {
    "phase": "recording", "episode": 7, "episodes": 50, "held": False, "phase_s": 60.0,
    "left_s": 15.3, "rerecorded": 1,
}  # fmt: skip


def camera(fps, **losses):
    return {"fps": fps, "nominal_fps": 30, "device_lost": 0, "corrupt": 0,
            "encoder": {"ring_lost": 0}, **losses}  # fmt: skip


def session(**cameras):
    arms = {side: {"hz": 249.6, "nominal_hz": 250} for side in ("leader", "follower")}
    return {
        "episode": {"rows": 1342}, "frames_lost": frames_lost({"cameras": cameras}),
        "disk": {"seconds_left": 319_882, "free_bytes": 7e10}, "cameras": cameras,
        "arms": {"left": arms, "right": arms},
    }  # fmt: skip


def line(plan, now, columns=79):
    return click.unstyle(fitting(plan_parts(plan, now), columns))


def test_time_losses_rates_and_disk_fit_80_columns_however_many_cameras():
    many = {f"camera_{i}": camera(30.0 + i / 10) for i in range(8)}
    assert line(PLAN, session(**many)) == (
        "recording 7/50  15.3 s left  0 lost  30.0 fps  250 Hz  disk 89 h  1342 rows"
    )


def test_a_slow_camera_is_named_and_all_losses_are_added():
    now = session(front=camera(29.9), wrist=camera(12.3, device_lost=4, encoder={"ring_lost": 9}))
    told = line(PLAN | {"held": True}, now)
    assert told == ("recording 7/50  HELD  15.3 s left  13 lost  wrist 12.3 fps  250 Hz  disk 89 h")


@pytest.mark.parametrize("columns", range(5, 100))
def test_a_narrow_terminal_drops_whole_parts_from_the_end(columns):
    whole = line(PLAN, session(front=camera(30.0)), 200)
    told = line(PLAN, session(front=camera(30.0)), columns)
    assert len(told) <= columns
    assert whole.startswith(told)
    if columns >= len("recording 7/50"):
        assert whole[len(told) : len(told) + 2] in ("", "  ")
