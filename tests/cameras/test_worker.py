import socket
import subprocess
import sys

import pytest

from recd.config.streams import FrameFlag
from recd.daemon.sim.v4l2shim.pictures import number_of
from recd.daemon.sim.v4l2shim.spec import V4l2Fault, VirtualCamera, VirtualFormat, VirtualSize
from recd.shm.dump import describe_ring


def v4l2_rig(rig, cam, **camera):
    return rig({"device": str(cam.path), **camera}, env=cam.environment)


def facts(slot):
    return slot.source_seq, slot.flags, slot.nbytes


def drawn(slot):
    return number_of(slot.payload)


def test_frames_of_a_device_reach_the_ring_with_their_numbers_and_stamps(webcam, rig):
    cam = webcam()
    worker = v4l2_rig(rig, cam, exposure=100)
    source = worker.await_message("ready")
    assert (source["payload"], source["stamp"], source["frame_ids"]) == ("mjpeg", "kernel", True)
    assert (source["width"], source["height"], source["fps_num"]) == (640, 480, 30)
    assert source["facts"]["controls"]["exposure"]["value"] == 100
    slots = worker.frames(20)
    assert [slot.source_seq for slot in slots] == list(range(20))
    assert [drawn(slot) for slot in slots] == list(range(20))
    assert not any(slot.flags & ~FrameFlag.LATE for slot in slots)
    assert all(s.t_capture_ns < s.t_arrival_ns <= s.t_publish_ns for s in slots)
    assert worker.stop() == 0
    status = worker.status()
    assert status["state"] == "running"
    assert status["worked"] == status["frames"] >= 20


def test_every_loss_and_fault_is_counted_and_flagged(webcam, rig):
    cam = webcam()
    worker = v4l2_rig(rig, cam, width=320, height=240, fps=60.0)
    seen = worker.each(5, facts)
    for fault, frames in ((V4l2Fault.DROP, 4), (V4l2Fault.SHORT, 2), (V4l2Fault.FREEZE, 20)):
        cam.server.inject(fault, frames=frames)
        seen += worker.each(25, facts)
    assert worker.stop() == 0
    seen += worker.each(worker.reader.peek_head() - worker.reader.cursor, facts)

    flagged = {flag: sum(bool(flags & flag) for _, flags, _ in seen) for flag in FrameFlag}
    status = worker.status()
    assert len(seen) + status["device_lost"] == seen[-1][0] + 1
    assert status["device_lost"] == describe_ring(worker.segment)["dropped"] == 4
    assert flagged[FrameFlag.GAP_BEFORE] == 1
    assert flagged[FrameFlag.CORRUPT] == status["corrupt"] == 2
    assert flagged[FrameFlag.FROZEN] == status["frozen"] == 16
    short = [nbytes for _, flags, nbytes in seen if flags & FrameFlag.CORRUPT]
    assert max(short) < min(n for _, flags, n in seen if not flags & FrameFlag.CORRUPT)
    worker.await_message("event", "camera.frozen")
    worker.await_message("event", "camera.moving")


def test_an_unplugged_camera_comes_back_inside_the_same_ring(webcam, rig):
    cam = webcam()
    worker = v4l2_rig(rig, cam)
    before = worker.frames(5)[-1]
    cam.server.unplug()
    lost = worker.await_message("event", "camera.lost")
    assert lost["fields"]["code"] == "unplugged"
    cam.server.plug()
    worker.await_message("event", "camera.back")
    back = worker.until(lambda slot: slot.source_seq < before.source_seq)
    assert back.flags & FrameFlag.GAP_BEFORE
    assert back.epoch == before.epoch
    assert back.t_capture_ns > before.t_capture_ns
    status = worker.status()
    assert (status["reconnects"], status["state"]) == (1, "running")
    assert worker.stop() == 0


def test_a_camera_that_comes_back_with_another_size_is_refused(webcam, rig):
    cam = webcam()
    worker = v4l2_rig(rig, cam)
    worker.frames(3)
    cam.server.unplug()
    worker.await_message("event", "camera.lost")
    webcam(VirtualCamera(size_answer=(320, 240)))  # at the same node
    refused = worker.await_message("refused")
    assert refused["code"] == "size"
    assert "320x240" in refused["message"]
    assert worker.process.wait(timeout=60) == 2


def test_a_camera_that_is_missing_at_first_is_opened_when_it_comes(webcam, rig):
    cam = webcam()
    cam.server.unplug()
    worker = v4l2_rig(rig, cam)
    lost = worker.await_message("event", "camera.lost")
    assert lost["fields"]["code"] == "missing"
    assert "recctl devices" in lost["fields"]["mend"]
    cam.server.plug()
    worker.await_message("ready")
    assert worker.frames(1)[0].source_seq == 0
    assert worker.stop() == 0


def test_a_camera_that_falls_silent_is_opened_again(webcam, rig):
    cam = webcam()
    worker = v4l2_rig(rig, cam)
    worker.frames(3)
    cam.server.inject(V4l2Fault.SILENT, frames=45)
    lost = worker.await_message("event", "camera.lost")
    assert lost["fields"]["code"] == "silent"
    worker.await_message("event", "camera.back")
    assert worker.stop() == 0


def test_what_only_a_person_can_mend_ends_the_process_with_the_mend(webcam, rig):
    cam = webcam()
    worker = v4l2_rig(rig, cam, width=800, height=600)
    refused = worker.await_message("refused")
    assert refused["code"] == "size"
    assert "cameras.front" in refused["message"]
    assert worker.process.wait(timeout=60) == 2


def test_a_device_without_mjpeg_is_told_which_word_to_write(webcam, rig):
    camera = VirtualCamera(formats=(VirtualFormat("YUYV", (VirtualSize(640, 480),)),))
    cam = webcam(camera)
    worker = v4l2_rig(rig, cam)
    refused = worker.await_message("refused")
    assert "fourcc: yuyv" in refused["mend"]
    assert worker.process.wait(timeout=60) == 2


def test_a_worker_whose_supervisor_is_gone_ends(webcam, rig):
    cam = webcam()
    worker = v4l2_rig(rig, cam)
    worker.frames(1)
    worker.link.close()
    assert worker.process.wait(timeout=60) == 0


def test_a_sender_over_http_is_ready_once_its_numbers_and_its_clock_are_understood(sim_camera, rig):
    camera = sim_camera("front:320x240@30")
    worker = rig(
        {"source": "http", "device": camera.url, "width": 320, "height": 240,
         "stamp_header": "X-Timestamp-Ns"},
    )  # fmt: skip
    source = worker.await_message("ready")
    first = worker.reader.peek_head()
    assert (source["stamp"], source["frame_ids"]) == ("foreign", True)
    slots = worker.frames(first + 9)
    seqs = [slot.source_seq for slot in slots]
    assert seqs[-10:] == list(range(seqs[-10], seqs[-10] + 10))
    by_arrival = [bool(slot.flags & FrameFlag.STAMP_ARRIVAL) for slot in slots]
    assert by_arrival[0]
    assert not any(by_arrival[first - 1 :])
    trusted = slots[-1]
    assert 0 <= trusted.t_arrival_ns - trusted.t_capture_ns == trusted.aux
    assert worker.stop() == 0


def test_frames_that_come_late_are_flagged_and_counted(sim_camera, rig):
    camera = sim_camera("front:320x240@30")
    worker = rig({"source": "http", "device": camera.url, "width": 320, "height": 240})
    worker.until(lambda slot: not slot.flags & FrameFlag.STAMP_ARRIVAL)
    camera.fault("delay", frames=10, value=300.0)
    late = worker.until(lambda slot: bool(slot.flags & FrameFlag.LATE))
    assert late.t_arrival_ns - late.t_capture_ns > 66_666_666
    assert worker.stop() == 0
    assert worker.status()["late"] >= 1


def test_a_cut_connection_is_made_again(sim_camera, rig):
    camera = sim_camera("front:320x240@30")
    worker = rig({"source": "http", "device": camera.url, "width": 320, "height": 240})
    worker.await_message("ready")
    before = worker.frames(3)[-1]
    camera.fault("disconnect", frames=10)
    worker.await_message("event", "camera.lost")
    worker.await_message("event", "camera.back")
    back = worker.until(lambda slot: slot.index > before.index)
    assert back.source_seq > before.source_seq
    assert worker.status()["reconnects"] == 1
    assert worker.stop() == 0


@pytest.mark.parametrize(("accept", "word"), [(False, "refused"), (True, "ready")])
def test_a_stream_of_another_size_is_taken_only_when_accepted(sim_camera, rig, accept, word):
    camera = sim_camera("front:320x240@30")
    asked = {"width": 640, "height": 480, "accept_mismatch": accept}
    worker = rig({"source": "http", "device": camera.url, **asked})
    message = worker.await_message(word)
    if not accept:
        assert "320x240 instead of 640x480" in message["message"]


def test_a_stream_of_another_rate_is_refused(sim_camera, rig):
    camera = sim_camera("front:320x240@60")
    worker = rig({"source": "http", "device": camera.url, "width": 320, "height": 240})
    refused = worker.await_message("refused")
    assert "cameras.front.fps: expected 30" in refused["message"]
    assert "Set fps: 60" in refused["mend"]
    assert worker.process.wait(timeout=60) == 2


def test_a_camera_that_never_delivers_is_told_and_opened_again(webcam, rig):
    cam = webcam()
    cam.server.inject(V4l2Fault.SILENT, frames=170)
    worker = v4l2_rig(rig, cam)
    lost = worker.await_message("event", "camera.lost")
    assert lost["fields"]["code"] == "no_frames"
    assert "fourcc: mjpeg" in lost["fields"]["mend"]
    worker.await_message("ready")
    assert worker.stop() == 0


def test_a_sender_that_is_reached_and_sends_nothing_is_no_matter_of_usb(rig):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"http://127.0.0.1:{mute.getsockname()[1]}/stream.mjpg"
        worker = rig({"source": "http", "device": address, "width": 320, "height": 240})
        lost = worker.await_message("event", "camera.lost")
    assert lost["fields"]["code"] == "no_frames"
    assert address in lost["fields"]["reason"]
    assert "USB" not in lost["fields"]["mend"]


def test_a_camera_process_carries_no_library_that_its_source_does_not_need():
    program = (
        "import sys, recd.daemon.cameras.worker, recd.daemon.cameras.v4l2, "
        "recd.daemon.cameras.http\n"
        "print(*sorted({'cv2', 'av', 'numba', 'pyarrow', 'zmq', 'pydantic'} & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert out.stdout.split() == []
