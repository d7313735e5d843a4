from pathlib import Path

from recd.config.reference import render


def test_the_committed_reference_is_what_the_models_say():
    page = Path(__file__).parents[2] / "docs" / "configuration.md"
    assert page.read_text() == render(), "run: make docs"
