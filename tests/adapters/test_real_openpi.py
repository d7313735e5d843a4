"""The real openpi-client at the scripted server, and the reference codecs' bytes (make interop)."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from recd.clients.adapters import gr00t_codec, openpi_codec
from recd.clients.adapters.profile import load_profile
from recd.clients.policybench.openpi_server import OpenpiServer

CLIENT = Path(__file__).with_name("real_openpi.py")


@pytest.mark.interop
def test_the_real_client_understands_the_scripted_server_and_packs_the_same_bytes() -> None:
    python = os.environ.get("RECD_OPENPI_PYTHON")
    assert python, "RECD_OPENPI_PYTHON names no interpreter: run tests/adapters/run"
    server = OpenpiServer(load_profile("libero", wire="openpi"))
    try:
        port = server.address.rpartition(":")[2]
        done = subprocess.run(
            [python, str(CLIENT), port], capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        server.close()
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["metadata"] == {"horizon": 30, "step_s": 1 / 30}
    assert told["shape"] == [[30, 6], [30, 6]]
    assert told["dtype"] == "float32"
    np.testing.assert_allclose(told["first"][1:], np.arange(1, 6))
    assert "observation/image" in told["failure"]
    two = {"state": np.array([1, 2], np.float32), "n": np.float32(2)}
    assert openpi_codec.encode(two) == bytes.fromhex(told["openpi"])
    back = gr00t_codec.decode(bytes.fromhex(told["gr00t_d"]))
    assert (back["state"] == two["state"]).all()
    array = gr00t_codec.encode(two["state"], "D")
    assert array in bytes.fromhex(told["gr00t_d"])
