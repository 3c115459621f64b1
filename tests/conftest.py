"""What holds for the whole test session, and the fixtures that several test files share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from system_needs import in_ci

ROOT = Path(__file__).resolve().parents[1]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI nothing is skipped: a skipped test there is a promise that nobody checked."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(session.config, "workerinput") or not in_ci():
        return
    if skipped := reporter.stats.get("skipped"):
        reporter.write_line("")
        reporter.write_line(f"CI skips nothing, but {len(skipped)} were skipped.", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def site() -> Path:
    """The book's site, brought up to date in the way everybody does it."""
    # The tests may run in several processes: all but the first to ask then wait.
    build = [sys.executable, "-m", "seglosses_nb", "build", "--wait"]
    done = subprocess.run(
        build, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        pytest.fail(f"the site could not be built:\n{done.stdout}", pytrace=False)
    return ROOT / "_build/site"
