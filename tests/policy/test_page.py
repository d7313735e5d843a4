import re
from pathlib import Path

import numpy as np

from recd.config.policy_wire import unpack

TESTS = Path(__file__).parents[1] / "e2e"
PAGE = Path(__file__).parents[2] / "docs" / "policy_api.md"


def test_every_test_that_the_page_names_for_a_fault_exists() -> None:
    page = PAGE.read_text()
    table = page[page.index("## What goes wrong") : page.index("## Where it is")]
    there = {
        name
        for file in TESTS.glob("*.py")
        for name in [file.name, *re.findall(r"^def (test_\w+)", file.read_text(), re.M)]
    }
    named = re.findall(r"`(test_[\w.]+?)(?:\.\.\.(?:\[[^]]*\])?)?`", table)
    assert len(named) > 20
    assert [name for name in named if not any(one.startswith(name) for one in there)] == []


def test_the_bytes_on_the_page_are_the_chunk_that_it_tells_of() -> None:
    section = PAGE.read_text().partition("## A chunk in bytes")[2].partition("## ")[0]
    parts = [bytes.fromhex(block) for block in re.findall(r"```\n([0-9a-f \n]+)```", section)]
    header, buffers = unpack(parts)
    told = section[section.index("That is `{") :]
    for key, value in header.items():
        if key not in ("lease", "arrays"):
            said = f'"{value}"' if isinstance(value, str) else str(value)
            assert re.search(rf"{key}:\s+{re.escape(said)}(?!\w)", told), key
    assert header["lease"] == {"id": "0123456789abcdef" * 2, "epoch": 2}
    assert np.array_equal(buffers["actions"].array(), np.float32([[0, -85, 70, 40, 0, 5]]))
