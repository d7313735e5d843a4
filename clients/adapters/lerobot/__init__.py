"""lerobot's PolicyServer, whose wire is pickle, at arm's length: only a confined process unpickles.

`wire` is the adapter, `sidecar` asks the other process and `launch` starts it: `confine` builds its
cage, `inside` runs in lerobot's interpreter. Between them are numbers (`frames`). Only `inside` may
import lerobot; it, `frames` and `syscalls` need nothing of recd but its clock.
"""
