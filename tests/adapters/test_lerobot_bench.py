"""The scripted server of lerobot's wire, without lerobot: what it takes, says, and spoils."""

import os
import pickle
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest

from recd.clients.adapters.profile import load_profile
from recd.clients.policybench.faults import FAULTS, Fault
from recd.clients.policybench.lerobot_pickle import HELPERS, dumps, loads, plain
from recd.clients.policybench.lerobot_server import LerobotServer
from recd.clients.policybench.script import RequestError, Script

JOINTS = [f"joint_{number}.pos" for number in range(6)]
STEPS = 5


@dataclass
class TimedObservation:
    timestamp: float
    timestep: int
    observation: dict[str, Any]
    must_go: bool = True


@dataclass
class RemotePolicyConfig:
    policy_type: str
    pretrained_name_or_path: str
    lerobot_features: dict[str, Any]
    actions_per_chunk: int
    device: str = "cpu"
    rename_map: dict[str, str] = field(default_factory=dict)


@dataclass
class TimedAction:
    timestamp: float
    timestep: int
    action: Any


@contextmanager
def modules_of_lerobot() -> Iterator[None]:
    """Its classes under their own names, and a torch whose tensors are numpy's, for pickles."""
    helpers = types.ModuleType(HELPERS)
    for kind in (TimedObservation, RemotePolicyConfig, TimedAction):
        kind.__module__ = HELPERS
        setattr(helpers, kind.__name__, kind)
    torch = types.ModuleType("torch")
    torch.tensor = lambda row: np.array(row, np.float32)  # type: ignore[attr-defined]
    torch.empty = np.empty  # type: ignore[attr-defined]
    parts = HELPERS.split(".")
    names = [".".join(parts[:count]) for count in range(1, len(parts))]
    made = {name: types.ModuleType(name) for name in names} | {HELPERS: helpers, "torch": torch}
    before = {name: sys.modules.get(name) for name in made}
    sys.modules.update(made)
    try:
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


def dumped(value: Any, protocol: int = 4) -> bytes:
    with modules_of_lerobot():
        return pickle.dumps(value, protocol)


def observation(step: int = 3, **changes: Any) -> TimedObservation:
    seen = {**{name: float(k) for k, name in enumerate(JOINTS)}, "task": "fold",
            "front": np.zeros((4, 6, 3), np.uint8), **changes}  # fmt: skip
    return TimedObservation(10.0, step, seen)


def config(most: int = STEPS) -> RemotePolicyConfig:
    features = {
        "observation.state": {"dtype": "float32", "shape": (6,), "names": JOINTS},
        "observation.images.front": {"dtype": "image", "shape": (4, 6, 3), "names": ["h"]},
    }  # fmt: skip
    return RemotePolicyConfig("act", "scripted", features, most)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_an_observation_is_read_by_every_protocol_that_python_3_writes(protocol) -> None:
    picture = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    columns = np.asfortranarray(np.arange(6.0, dtype=">f4").reshape(2, 3))
    sent = observation(front=picture, columns=columns, one=np.float32(2.5))
    told = loads(dumped(sent, protocol), "TimedObservation")
    assert (told["timestep"], told["must_go"]) == (3, True)
    assert np.array_equal(plain(told["observation"]["front"]), picture)
    assert np.array_equal(plain(told["observation"]["columns"]), columns)
    assert told["observation"]["one"] == 2.5


class Calls:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        (Calls(os.system, ("touch gone",)), "system is not taken"),
        (Calls(eval, ("1",)), "builtins.eval is not taken"),
        (np.array([{}]), "expected one of numbers"),
        (np.zeros(1, [("a", "u1")]), "Error"),
        (SimpleNamespace(), "types.SimpleNamespace is not taken"),
    ],
)
def test_a_pickle_that_names_anything_else_is_refused_and_nothing_is_run(
    inside, words, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=words):
        loads(dumped(observation(inside=inside)), "TimedObservation")
    assert not list(tmp_path.iterdir())


def test_rubbish_and_another_class_are_refused_in_words() -> None:
    whole = dumped(observation())
    for data in (b"", b"\x80\x05rubbish", whole[: len(whole) // 2], dumped(3), dumped(config())):
        with pytest.raises(RequestError):
            loads(data, "TimedObservation")


class Client:
    """lerobot's side of the wire: its four calls, by bytes."""

    def __init__(self, channel: grpc.Channel) -> None:
        service = "/transport.AsyncInference/"
        self.ready, self.setup, self.act = (
            channel.unary_unary(service + name)
            for name in ("Ready", "SendPolicyInstructions", "GetActions")
        )
        self._observe = channel.stream_unary(service + "SendObservations")

    def begin(self, most: int = STEPS) -> None:
        self.ready(b"")
        data = dumped(config(most))
        self.setup(b"\x0a" + _length(data) + data)

    def observe(self, seen: TimedObservation, pieces: int = 3) -> None:
        data = dumped(seen)
        size = -(-len(data) // pieces)
        parts = [data[at : at + size] for at in range(0, len(data), size)]
        self._observe(iter(b"\x08\x02\x12" + _length(part) + part for part in parts))

    def actions(self, timeout_s: float = 10.0) -> list[TimedAction]:
        reply = self.act(b"", timeout=timeout_s)
        if not reply:
            return []
        at = 2
        while reply[at - 1] >= 0x80:
            at += 1
        with modules_of_lerobot():
            return pickle.loads(reply[at:])


def _length(data: bytes) -> bytes:
    value, out = len(data), bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


@pytest.fixture
def server() -> Iterator[LerobotServer]:
    started = LerobotServer(load_profile("", wire="lerobot"), Script(horizon=8, step_s=0.1))
    try:
        yield started
    finally:
        started.close()


@pytest.fixture
def client(server: LerobotServer) -> Iterator[Client]:
    with grpc.insecure_channel(server.address) as channel:
        client = Client(channel)
        client.begin()
        yield client


def test_a_chunk_answers_the_newest_observation_and_swings_the_first_joint(client, server) -> None:
    client.observe(observation(step=3))
    client.observe(observation(step=7))
    chunk = client.actions()
    assert [action.timestep for action in chunk] == [7, 8, 9, 10, 11]
    assert [action.timestamp for action in chunk] == pytest.approx([10.0, 10.1, 10.2, 10.3, 10.4])
    rows = np.array([action.action for action in chunk])
    assert rows.shape == (STEPS, 6)
    assert (rows[:, 1:] == np.arange(1, 6)).all(), "the others stand"
    assert 0 < np.ptp(rows[:, 0]) <= 10.0
    assert server.served == 1


def test_without_an_observation_the_answer_is_empty_as_lerobots(client) -> None:
    assert client.actions() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"front": np.zeros((4, 5, 3), np.uint8)}, "front: expected uint8"),
        ({"front": 1.0}, "front: expected uint8"),
        ({"joint_2.pos": "far"}, "expected a number"),
    ],
)
def test_an_observation_that_was_not_announced_is_refused_in_words(client, change, words) -> None:
    client.observe(observation(**change))
    with pytest.raises(grpc.RpcError, match=words):
        client.actions()
    client.observe(observation())
    assert client.actions(), "and the next one is served"


@pytest.mark.parametrize("features", [None, {}, {"observation.state": {}}, [1]])
def test_features_without_the_names_of_joints_are_refused_in_words(client, features) -> None:
    told = config()
    told.lerobot_features = features
    data = dumped(told)
    with pytest.raises(grpc.RpcError, match="lerobot_features"):
        client.setup(b"\x0a" + _length(data) + data)


def test_an_evil_pickle_ends_its_call_and_not_the_server(client, server) -> None:
    with pytest.raises(grpc.RpcError, match="is not taken"):
        client.observe(observation(evil=Calls(os.system, ("true",))))
    assert "is not taken" in server.trouble
    client.observe(observation())
    assert client.actions()


def test_every_fault_comes_as_its_table_says(client, server) -> None:
    def asked(kind: str, seconds: float = 0.0, timeout_s: float = 10.0) -> Any:
        server.faults.set(Fault(kind, 1, seconds))
        client.observe(observation())
        return client.actions(timeout_s)

    def rows(kind: str) -> np.ndarray:
        return np.array([action.action for action in asked(kind)])

    assert np.isnan(rows("nan")).sum() == 1
    assert np.isinf(rows("inf")).sum() == 1
    assert rows("width").shape == (STEPS, 5)
    assert rows("horizon").shape == (4, 6), "half of the script's eight"
    assert rows("far").min() > 1000
    assert asked("object")[0].action == os.getcwd(), "whoever unpickles it runs what it says"
    with pytest.raises((MemoryError, ValueError)):
        asked("huge")
    with pytest.raises((pickle.UnpicklingError, EOFError, ValueError)):
        asked("truncated")
    for kind, code in (("error", "UNKNOWN"), ("hangup", "UNAVAILABLE")):
        with pytest.raises(grpc.RpcError) as failed:
            asked(kind)
        assert failed.value.code().name == code
    assert len(asked("restart")) == STEPS
    for kind in ("stall", "late"):
        with pytest.raises(grpc.RpcError) as failed:
            asked(kind, seconds=60.0, timeout_s=0.2)
        assert failed.value.code().name == "DEADLINE_EXCEEDED"
        server.faults.clear()
    client.observe(observation())
    assert len(client.actions()) == STEPS
    assert set(server.faults.happened) == set(FAULTS) - {"names"}, "this wire tells no names"


def test_a_closed_server_ends_at_once_whatever_stalls(client, server) -> None:
    server.faults.set(Fault("stall", 1, 3600.0))
    client.observe(observation())
    call = client.act.future(b"")
    server.close()
    assert call.exception() is not None


def test_a_port_that_is_taken_is_an_error(server) -> None:
    port = int(server.address.rpartition(":")[2])
    with pytest.raises(OSError, match=str(port)):
        LerobotServer(load_profile("", wire="lerobot"), port=port)


def test_actions_are_read_by_lerobots_own_unpickler() -> None:
    with modules_of_lerobot():
        (first, second) = pickle.loads(
            dumps([[1.0, 2.0], [3.0, 4.0]], first=5, time_s=1.0, step_s=0.5)
        )
    assert (first.timestep, second.timestep, second.timestamp) == (5, 6, 1.5)
    assert second.action.tolist() == [3.0, 4.0]
