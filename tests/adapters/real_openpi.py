"""Run by the interpreter that has the real openpi-client: it asks the server whose port is given.

Prints one line of JSON: what came back, and the bytes that the reference codecs make.
"""

import json
import sys

import msgpack_numpy as reference_d
import numpy as np
from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy


def main() -> None:
    client = WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]))
    picture = np.zeros((224, 224, 3), np.uint8)
    request = {
        "observation/image": picture, "observation/wrist_image": picture,
        "observation/state": np.arange(6, dtype=np.float64), "prompt": "pick",
    }  # fmt: skip
    actions = client.infer(request)["actions"]
    again = client.infer(request)["actions"]
    try:
        client.infer({"prompt": "pick"})
        failure = ""
    except RuntimeError as error:
        failure = str(error)
    two = {"state": np.array([1, 2], np.float32), "n": np.float32(2)}
    print(
        json.dumps(
            {
                "metadata": client.get_server_metadata(),
                "shape": [list(actions.shape), list(again.shape)],
                "dtype": str(actions.dtype),
                "first": actions[0].tolist(),
                "failure": failure,
                "openpi": msgpack_numpy.packb(two).hex(),
                "gr00t_d": reference_d.packb(two).hex(),
            }
        )
    )


if __name__ == "__main__":
    main()
