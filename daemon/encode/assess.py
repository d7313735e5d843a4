"""What a codec costs here that was named or pinned: nobody probed it, and it is never replaced.

Measured once for each codec, set of cameras and computer, beside everything else and below it;
remembered beside the compiled kernels, so that later starts know at once.
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from recd.daemon import processor
from recd.daemon.encode.codecs import CodecSettings
from recd.daemon.encode.probe import CodecChoice, Trial, in_own_process, leaves_room
from recd.shm.aot import cache_dir

FOLDER = "encoding"
_NICE = 19
_DEADLINE_S = 120.0


class Assessment:
    """One such figure. choice: None until it is known, and for a codec that does not work (its
    encoder tells why)."""

    def __init__(
        self, settings: CodecSettings, sizes: Sequence[tuple[int, int]], *, fps: float
    ) -> None:
        """sizes: (width, height) of every camera that is encoded at `fps`."""
        self.choice: CodecChoice | None = None
        self._settings, self._sizes, self._fps = settings, list(sizes), fps

    def begin(self, done: Callable[[], None]) -> None:
        """Recall it, or measure it in a process of its own. done: called from any thread."""
        # A thread that waits for a child: it ends with this process, and takes the child along.
        threading.Thread(target=self._find, args=(done,), name="assess", daemon=True).start()

    def _find(self, done: Callable[[], None]) -> None:
        path = self._path()
        trial = _recalled(path)
        if trial is None:
            trial = in_own_process(
                self._settings, self._sizes, self._fps, deadline_s=_DEADLINE_S, nice=_NICE
            )
            if not trial.refused:
                _remember(path, trial)
        if not trial.refused:
            self.choice = CodecChoice(self._settings, (trial,), leaves_room(trial))
        done()

    def _path(self) -> Path:
        import av

        asked = [self._settings.plain(), sorted(self._sizes), self._fps]
        here = [processor.model(), len(os.sched_getaffinity(0)), av.__version__]
        digest = hashlib.sha256(json.dumps([asked, here], sort_keys=True).encode()).hexdigest()
        return cache_dir() / FOLDER / f"{digest[:32]}.json"


def _recalled(path: Path) -> Trial | None:
    with suppress(OSError, ValueError, TypeError):
        return Trial(**json.loads(path.read_text()))
    return None


def _remember(path: Path, trial: Trial) -> None:
    with suppress(OSError):  # measured again next time
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(asdict(trial)))
        draft.replace(path)
