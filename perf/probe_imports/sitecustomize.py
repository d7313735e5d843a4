"""Every Python process of a daemon under `recd.perf imports` begins with this: its standard error,
where the interpreter tells each import's time, goes into a file called by its process id, and so
does that of a process that one of them forks.
"""

import os

FOLDER = "RECD_IMPORTS_FOLDER"
"""Variable with the folder of the files."""


def _tell_own_file() -> None:
    name = os.path.join(os.environ[FOLDER], str(os.getpid()))
    file = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(file, 2)
    os.close(file)


if os.environ.get(FOLDER):
    _tell_own_file()
    os.register_at_fork(after_in_child=_tell_own_file)
