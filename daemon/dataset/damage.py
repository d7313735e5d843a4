"""What reading a damaged or hostile file raises, told as an error with its mend.

Files of a dataset come from anywhere: a value of another kind than expected is damage there, not a
fault of ours. Used at the outer edge only, around reading.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from recd.config.errors import DatasetError

DAMAGE = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    OverflowError,
    MemoryError,
    RecursionError,
    pa.ArrowException,
)


@contextmanager
def telling(root: Path) -> Iterator[None]:
    """DatasetError that names the dataset for whatever its files made reading fail with."""
    try:
        yield
    except DAMAGE as broken:
        raise _damaged(root, broken) from broken
    except OSError as broken:
        if broken.filename is not None:
            raise
        raise _damaged(root, broken) from broken


def _damaged(root: Path, broken: Exception) -> DatasetError:
    lines = str(broken).splitlines() or [""]
    return DatasetError(
        f"{root}: a file of it is damaged: {type(broken).__name__}: {lines[0][:200]}",
        mend="Run `recctl verify` on it for details, then `recctl recover`.",
        code="dataset_damaged",
    )
