"""A policy in a process of its own: `python drive_policy.py ENDPOINT HORIZON`. Prints how
its clock goes to the daemon's, and what became of each chunk until its input ends, which a test may
also make it never notice (SIGSTOP).
"""

import select
import sys

import numpy as np

from recd.clients.policy import PolicyClient
from recd.config.errors import RecdError


def main() -> None:
    steps = int(sys.argv[2])
    with PolicyClient(endpoint=sys.argv[1], name="driven by a test") as policy:
        print("clock", *policy.clock(), flush=True)
        policy.acquire()
        while not select.select([sys.stdin], [], [], 0)[0]:
            try:
                seen = policy.observe()
                ramp = np.linspace(0.0, 6.0, steps)[:, None] * np.eye(1, len(policy.names))
                ack = policy.act(seen, seen.state + ramp, dt_s=1 / 30)
            except RecdError as error:  # no observation, or no daemon: it goes on all the same
                print("none", error.message, flush=True)
                continue
            print(ack.status, ack.reason, flush=True)


if __name__ == "__main__":
    main()
