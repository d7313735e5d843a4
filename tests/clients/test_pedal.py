"""A pedal through the interface of the evdev package; there is no such device to test on."""

import socket
import struct
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from recd.clients.recctl.keys import Pedal, wait_for_action
from recd.config.errors import DeviceError

KEY, PRESS, RELEASE, REPEAT = 1, 1, 0, 2
CODES = {30: "KEY_A", 48: "KEY_B", 46: "KEY_C", 28: ["KEY_ENTER", "KEY_OTHER"], 99: "KEY_SYSRQ"}


@dataclass(frozen=True)
class Event:
    type: int
    code: int
    value: int


class FootSwitch:
    """What evdev.InputDevice does, on one end of a socket; the foot has the other."""

    foot: socket.socket

    def __init__(self, path):
        if path == "/dev/input/private":
            raise PermissionError(13, "Permission denied", path)
        if path != "/dev/input/event7":
            raise FileNotFoundError(2, "No such file or directory", path)
        self._device, FootSwitch.foot = socket.socketpair()
        self._device.setblocking(False)
        self.grabbed = False

    @property
    def fd(self):
        return self._device.fileno()

    def grab(self):
        self.grabbed = True

    def read(self):
        data = self._device.recv(4096)
        if not data:
            raise OSError(19, "No such device")
        return [Event(*fields) for fields in struct.iter_unpack("3i", data)]

    def close(self):
        self._device.close()


@pytest.fixture
def pedal(monkeypatch):
    package = SimpleNamespace(InputDevice=FootSwitch, ecodes=SimpleNamespace(KEY=CODES))
    monkeypatch.setitem(sys.modules, "evdev", package)
    made = Pedal("/dev/input/event7")
    yield made
    made.close()
    FootSwitch.foot.close()


def tread(*events):
    FootSwitch.foot.sendall(b"".join(struct.pack("3i", *event) for event in events))


@pytest.mark.parametrize(
    ("code", "action"), [(30, "rerecord"), (48, "hold"), (46, "next"), (28, "next"), (99, None)]
)
def test_a_press_acts_once_and_release_and_repeat_do_not(pedal, code, action):
    tread((KEY, code, PRESS))
    assert wait_for_action([pedal], 10) == action
    tread((KEY, code, REPEAT), (KEY, code, RELEASE), (4, 4, 458756))
    assert wait_for_action([pedal], 10) is None


def test_a_pedal_that_is_pulled_out_is_told_once_and_the_rest_goes_on(pedal):
    FootSwitch.foot.close()
    with pytest.raises(DeviceError, match="the pedal is gone") as told:
        wait_for_action([pedal], 10)
    assert told.value.mend
    assert wait_for_action([pedal], 0) is None


@pytest.mark.parametrize(
    ("path", "mend"), [("/dev/input/private", "group|usermod"), ("/dev/input/none", "by-id")]
)
def test_a_pedal_that_cannot_be_opened_names_the_mend(pedal, path, mend):
    with pytest.raises(DeviceError, match=path) as told:
        Pedal(path)
    assert any(word in told.value.mend for word in mend.split("|"))


def test_without_the_evdev_package_the_mend_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "evdev", None)
    with pytest.raises(DeviceError, match="evdev, which is not installed") as told:
        Pedal("/dev/input/event7")
    assert "recd[pedal]" in told.value.mend
