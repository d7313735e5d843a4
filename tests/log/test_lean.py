import subprocess
import sys

import pytest

ARRAY = """
import sys
from recd.daemon import lean
lean.refuse_pandas()
import numpy, pyarrow
pyarrow.array(numpy.zeros(2))
print(sorted({"pandas", "rich"} & set(sys.modules)))
"""


def test_neither_rich_nor_pandas_comes_along_with_what_a_writer_imports():
    pytest.importorskip("pandas")
    told = subprocess.run([sys.executable, "-c", ARRAY], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_who_wants_rich_after_that_still_gets_it():
    pytest.importorskip("rich")
    code = "from recd.daemon import lean; import rich, asyncio; asyncio.run; rich.print"
    subprocess.run([sys.executable, "-c", code], check=True)
