"""Decodes published episodes in the background, one at a time, in a child of lowest priority.

It stands still while an episode is being recorded or saved, and is killed when the writer ends;
what was not decoded then waits in its manifest and is taken up at the next start.
"""

import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recd.daemon import realtime
from recd.daemon.dataset.decode import decode_facts

Told = Callable[[str, dict[str, Any]], None]


class BackgroundDecode:
    """Queue and child. told: gets (uid, facts for the manifest) of each episode, in `step`."""

    def __init__(self, root: Path, told: Told) -> None:
        self._root = root
        self._told = told
        self._queue: deque[str] = deque()
        self._done: set[str] = set()  # told of, with or without a result: not again by itself
        self._listed = False  # whether what earlier sessions left was asked for
        self._child: subprocess.Popen[bytes] | None = None
        self._out = self._err = -1
        self._uid = ""
        self._paused = False

    @property
    def idle(self) -> bool:
        """True when nothing runs or waits."""
        return self._child is None and not self._queue and self._listed

    def want(self, uid: str) -> None:
        """An episode was published: it goes before everything that waits already."""
        self.forget(uid)
        self._queue.appendleft(uid)

    def forget(self, uid: str) -> None:
        """An episode is taken back: its files are about to move."""
        if uid in self._queue:
            self._queue.remove(uid)
        if self._child is not None and self._uid == uid:
            self._kill()

    def pause(self) -> None:
        """Stand still until `step` is told that nothing is being recorded.

        Not before the child has tied its life to ours: a stopped one would outlive us. One that
        only lists what waits is ended instead: it is soon done again, and held 40 MB meanwhile.
        """
        if self._child is not None and not self._uid:
            self._kill()
        if self._child is not None and not self._paused and self._tied:
            self._paused = True
            self._child.send_signal(signal.SIGSTOP)

    def step(self, *, recording: bool) -> None:
        """Go on, hear what ended, begin the next; never waits."""
        if recording:
            self.pause()
            return
        if self._child is None:
            self._begin_next()
            return
        if self._paused:
            self._paused = False
            self._child.send_signal(signal.SIGCONT)
        if self._child.poll() is not None:
            self._hear(self._child.returncode)

    def close(self) -> None:
        """End the child; what waits is left to the next start."""
        if self._child is not None:
            self._kill()

    @property
    def _tied(self) -> bool:
        return os.fstat(self._out).st_size > 0

    def _begin_next(self) -> None:
        self._paused = False
        if self._queue:
            self._uid = self._queue.popleft()
            self._spawn(self._uid)
        elif not self._listed:
            self._uid = ""
            self._spawn()

    def _spawn(self, *uid: str) -> None:
        # No pipes: nobody reads while it runs, and a decoder may have much to say.
        self._out, self._err = (os.memfd_create(f"recd-decode-{end}") for end in ("out", "err"))
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "recd.daemon.writer.decoder", str(self._root), *uid],
                stdin=subprocess.DEVNULL,
                stdout=self._out,
                stderr=self._err,
                env={**os.environ, realtime.PARENT_KEY: str(os.getpid())},
                start_new_session=True,  # its niceness is not the writer's
            )
        except OSError as refused:
            self._close_files()
            self._end(f"not decoded: {refused.strerror}")

    def _hear(self, code: int) -> None:
        out, err = _content(self._out), _content(self._err)
        self._child = None
        self._close_files()
        if code:
            self._end(f"not decoded: {_why(code, err)}")
            return
        if self._uid:
            self._done.add(self._uid)
            self._told(self._uid, json.loads(out))
            return
        self._listed = True
        known = self._done.union(self._queue)
        self._queue.extend(uid for uid in json.loads(out) if uid not in known)

    def _end(self, why: str) -> None:
        """Without a result: told as such, and tried again at the next start only."""
        if self._uid:
            self._done.add(self._uid)
            self._told(self._uid, decode_facts(None, findings=[why]))
        else:
            self._listed = True

    def _kill(self) -> None:
        assert self._child is not None, "only a child is killed"
        self._child.kill()
        self._child.wait()
        self._child, self._paused = None, False
        self._close_files()

    def _close_files(self) -> None:
        os.close(self._out)
        os.close(self._err)


def _why(code: int, said: str) -> str:
    """Why a child gave no result: its last line, or what ended it."""
    if code < 0:
        return f"ended by signal {-code} ({signal.strsignal(-code)})"
    return said.splitlines()[-1] if said else f"exit code {code}"


def _content(fd: int) -> str:
    return os.pread(fd, os.fstat(fd).st_size, 0).decode("utf-8", "replace")
