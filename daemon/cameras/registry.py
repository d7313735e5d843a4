"""Which module reads which kind of source: a table, and what other packages add to it.

Entry points of the group `recd.cameras` name further sources: `name = "package.module:factory"`,
where `factory(request: CameraRequest) -> CameraSource`. Nothing is imported before it is asked for.
"""

import importlib
from collections.abc import Callable

from recd.config.errors import DeviceError
from recd.daemon.cameras.request import CameraRequest
from recd.daemon.cameras.source import CameraSource

ENTRY_POINT_GROUP = "recd.cameras"

SOURCES: dict[str, tuple[str, str]] = {
    "v4l2": ("recd.daemon.cameras.v4l2", "V4l2Source"),
    "http": ("recd.daemon.cameras.http", "HttpSource"),
    "rtsp": ("recd.daemon.cameras.av_stream", "StreamSource"),
    "file": ("recd.daemon.cameras.av_file", "FileSource"),
    "pyav": ("recd.daemon.cameras.av_device", "DeviceSource"),
    "opencv": ("recd.daemon.cameras.opencv", "OpenCvSource"),
}
"""`source` in the configuration -> (module, class). `sim` is turned into `http` before."""

UNDECODED: dict[tuple[str, str], tuple[str, str]] = {
    (source, "h264"): ("recd.daemon.cameras.av_units", "UnitSource") for source in ("rtsp", "http")
}
"""(`source`, payload) of what is read in another way because it goes into the ring undecoded."""


def factory(source: str) -> Callable[[CameraRequest], CameraSource]:
    """What makes sources of this kind. DeviceError names the known ones for an unknown kind."""
    if source in SOURCES:
        module, name = SOURCES[source]
        return getattr(importlib.import_module(module), name)
    from importlib.metadata import entry_points  # 12 % of a camera's imports

    plugins = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if source not in plugins:
        known = ", ".join(sorted({*SOURCES, *plugins}))
        raise DeviceError(
            f"source: expected one of {known}, found {source}",
            mend=f"Correct it, or install the package that provides {source!r}.",
            code="source",
        )
    return plugins[source].load()


def make_source(request: CameraRequest) -> CameraSource:
    """A source for `request`, not opened yet."""
    if (row := UNDECODED.get((request.source, request.payload))) is not None:
        source: CameraSource = getattr(importlib.import_module(row[0]), row[1])(request)
        return source
    return factory(request.source)(request)
