"""lerobot's PolicyServer, whose wire is pickle, at arm's length: only a confined process unpickles.

`sidecar` is recd's end, `inside` runs in lerobot's interpreter, `confine` builds its cage; between
them are frames of numbers (`frames`). Of this package, `inside` alone may import lerobot.
"""
