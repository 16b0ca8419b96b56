"""`BackboneContract` in a pytest subprocess, as in the tests of a plugin."""

import os
import subprocess
import sys

import pytest


def run_contract(tmp_path, *names, only=None):
    lines = ["import zoo.testing", ""]
    for number, name in enumerate(names):
        lines += [f"class Test{number}(zoo.testing.BackboneContract):", f"    backbone = {name!r}"]
    return run_tests(tmp_path, lines, only)


def run_tests(tmp_path, lines, only=None):
    """Run a test file in a pytest subprocess."""
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_contract.py").write_text("\n".join(lines))
    command = [sys.executable, "-m", "pytest", "-rsfx", "-p", "no:xdist", "-p", "no:cacheprovider"]
    command += ["-k", only] if only else []
    return subprocess.run(
        [*command, str(tests)], capture_output=True, text=True, cwd=tests, env=os.environ
    )


@pytest.mark.slow
def test_contract_reports_passed_skipped_and_xfailed(faulty, tmp_path):
    done = run_contract(tmp_path, "sound", "faulty/excepted")
    assert done.returncode == 0, done.stdout
    assert "29 passed, 8 skipped, 1 xfailed" in done.stdout
    assert "one layer is a spare" in done.stdout


@pytest.mark.slow
def test_contract_failure_message_contains_check_and_values(faulty, tmp_path):
    done = run_contract(tmp_path, "faulty/counting", only="frozen_stays_frozen")
    assert done.returncode == 1
    assert "test_frozen_stays_frozen" in done.stdout
    message = "faulty/counting fails 'frozen_stays_frozen' (training the heads leaves every other"
    assert message in done.stdout
    assert "1 of 15 tensors outside the heads changed: calls by up to" in done.stdout
