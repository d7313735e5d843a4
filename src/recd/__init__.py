"""recd: the recording daemon for robot learning. The four layers are recd.config, shm, daemon, clients."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("recd")
except PackageNotFoundError:  # a source tree on PYTHONPATH, not installed
    __version__ = "0.1.0+source"
