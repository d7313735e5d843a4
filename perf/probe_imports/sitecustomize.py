"""Every Python process of a daemon under `recd.perf imports` begins with this: its standard error,
where the interpreter tells each import's time, goes into a file called by its process id.
"""

import os

FOLDER = "RECD_IMPORTS_FOLDER"
"""Variable with the folder of the files."""

if os.environ.get(FOLDER):
    _file = os.open(
        os.path.join(os.environ[FOLDER], str(os.getpid())), os.O_WRONLY | os.O_APPEND | os.O_CREAT
    )
    os.dup2(_file, 2)
    os.close(_file)
