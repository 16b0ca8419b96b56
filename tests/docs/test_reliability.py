"""docs/reliability.md: every test that it names exists, and every test of faults is named."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
# Without a fault: the controls of others.
CONTROLS = {"test_checkpoint_without_failing_call_is_published"}


def names_in(folder: Path) -> set[str]:
    texts = (path.read_text(encoding="utf-8") for path in folder.rglob("test_*.py"))
    return {name for text in texts for name in re.findall(r"^def (test_\w+)\(", text, re.MULTILINE)}


def test_reliability_page_names_tests_that_exist():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "| case |" not in line]
    named = [re.findall(r"`(test_\w+)`", row.split(" | ")[-1]) for row in rows]
    assert len(rows) > 40
    assert all(named)
    every = {name for names in named for name in names}
    assert every <= names_in(ROOT / "tests")
    assert names_in(ROOT / "tests" / "faults") - CONTROLS <= every


def test_part_of_each_file_of_faults_runs_in_ci():
    files = sorted((ROOT / "tests" / "faults").glob("test_*.py"))
    assert len(files) > 2
    assert [path.name for path in files if "mark.slow" not in path.read_text()] == []
    assert 'pytest -m "slow and not long"' in (ROOT / ".ci" / "run").read_text()


def test_reliability_page_is_linked():
    for path in ("README.md", "docs/resuming.md", "CONTRIBUTING.md"):
        assert "reliability.md" in (ROOT / path).read_text(encoding="utf-8")
    assert "pytest -m faults" in PAGE
