"""The page on failures names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_failure_on_the_page_has_a_test_that_exists() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for failure, *_, tests in rows:
        named = re.findall(r"`([a-z0-9]+/test_[a-z_]+)", tests)
        assert named, f"{failure}: no test"
        for name in named:
            assert (ROOT / "tests" / f"{name}.py").is_file(), f"{failure}: {name} is no test"
