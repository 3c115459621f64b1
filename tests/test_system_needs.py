"""What is missing is named, skipped on a person's machine and an error in CI."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import system_needs


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine with nothing installed: an empty folder is the whole PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    system_needs.find.cache_clear()
    yield tmp_path
    system_needs.find.cache_clear()


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_missing_program_skips_with_its_reason(bare: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match=r"node is missing .*apt-get install nodejs"):
        system_needs.need("node")


def test_missing_program_is_an_error_in_ci(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="CI skips nothing"):
        system_needs.need("node")
    assert system_needs.main([]) == 1


def test_program_that_only_says_where_to_get_the_real_one_is_missing(bare: Path) -> None:
    program(bare, "chromium", "exit 1")
    program(bare, "google-chrome", "exit 0")
    program(bare, "node", "exit 0")
    assert system_needs.need("chromium") == str(bare / "google-chrome")
    assert system_needs.missing() == ["chromedriver", "compiler"]


def test_report_names_everything(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program(bare, "node", "exit 0")
    assert system_needs.main([]) == 0
    said = capsys.readouterr().out
    assert f"node: {bare / 'node'}" in said
    for name in system_needs.NEEDS:
        assert name in said
    assert "Only the tests that need it are skipped" in said


def test_install_asks_apt_for_what_is_missing_only(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program(bare, "node", "exit 0")
    program(bare, "apt-get", f'echo "$@" >> {bare}/asked')
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert system_needs.main(["--install"]) == 0
    asked = (bare / "asked").read_text(encoding="utf-8").splitlines()
    assert asked[0] == "update"
    assert asked[1] == "install -y --no-install-recommends chromium chromium-driver g++"


def test_failing_apt_shows_the_end_of_its_log(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program(bare, "apt-get", "echo no space left; exit 100")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert system_needs.main(["--install"]) == 0
    said = capsys.readouterr().out
    assert "apt-get update failed" in said
    assert "no space left" in said


def test_nobody_is_asked_for_the_password_of_their_own_machine(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(bare, "apt-get", "exit 0")
    program(bare, "sudo", "exit 0")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert not system_needs.install(["node"])


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("false", 0), ("", 0)])
def test_a_skipped_test_fails_a_ci_run(tmp_path: Path, ci: str, status: int, workers: str) -> None:
    for name in ("conftest.py", "system_needs.py"):
        (tmp_path / name).write_bytes(Path(__file__).with_name(name).read_bytes())
    (tmp_path / "test_it.py").write_text(
        "import pytest\n\ndef test_a():\n    pytest.skip('why')\n\ndef test_b():\n    pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", workers, "-p", "no:cacheprovider", tmp_path],
        env={**os.environ, "CI": ci},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout
    assert ("CI skips nothing, but 1 were skipped." in done.stdout) == (status == 1)
