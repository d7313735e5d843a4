"""recd: the recording daemon for robot learning. Its layers: recd.config, shm, daemon, clients."""

__version__: str


def __getattr__(name: str) -> str:
    """`__version__`, looked up when asked for: that costs 28 ms, and no worker needs it."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("recd")
    except PackageNotFoundError:  # a source tree on PYTHONPATH, not installed
        found = "0.1.0+source"
    globals()[name] = found  # every manifest asks for it: 0.5 ms each time else
    return found
