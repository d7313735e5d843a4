import re
from pathlib import Path

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
