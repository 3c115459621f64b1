"""What the tests need beyond pip: one table for the installer and for the tests themselves.

    python3 tests/system_needs.py            says what is here and what is missing
    python3 tests/system_needs.py --install  installs what is missing where it can

The command line runs on a bare interpreter, before anything is installed: standard library only.
A test asks with ``need("chromium")`` and gets the program's path. Where the program is missing, the
test is skipped and says why; with ``CI`` set it fails, because there nothing may be skipped.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Need:
    """One program that some tests cannot do without."""

    programs: tuple[str, ...]  # any one of these will do
    purpose: str
    package: str  # the name of Debian's package


NEEDS = {
    "chromium": Need(
        ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
        "opens every page of the site in a real browser",
        "chromium",
    ),
    "chromedriver": Need(("chromedriver",), "drives that browser", "chromium-driver"),
    "node": Need(("node", "nodejs"), "runs the site's JavaScript outside a browser", "nodejs"),
    "compiler": Need(("g++", "clang++"), "torch.compile with the inductor backend", "g++"),
}


@cache
def find(name: str) -> str | None:
    """Return the path of a program that fulfils the need and answers, or None."""
    for program in NEEDS[name].programs:
        path = shutil.which(program)
        # Some distributions ship a `chromium` that only says where to get the real one.
        if path and _answers(path):
            return path
    return None


def _answers(path: str) -> bool:
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def missing() -> list[str]:
    """Return the names of the needs that this machine does not fulfil."""
    return [name for name in NEEDS if find(name) is None]


def complaint(name: str) -> str:
    """Say what is missing, what it is for and how to get it."""
    need = NEEDS[name]
    return f"{name} is missing ({need.purpose}); on Debian: apt-get install {need.package}"


def in_ci() -> bool:
    """Tell whether nothing may be skipped: ``CI`` is set, and not to a no."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false", "no"}


def need(name: str) -> str:
    """Return the program's path; without it skip the calling test, or fail it in CI."""
    path = find(name)
    if path is not None:
        return path
    import pytest

    if in_ci():
        pytest.fail(f"{complaint(name)}. CI skips nothing.")
    pytest.skip(complaint(name))


def _apt() -> list[str] | None:
    """Return how to call apt-get here, or None where we must not or cannot."""
    if shutil.which("apt-get") is None:
        return None
    if os.geteuid() == 0:
        return ["apt-get"]
    # Only in CI: on a person's machine the choice to use sudo is theirs.
    return ["sudo", "-n", "apt-get"] if in_ci() and shutil.which("sudo") else None


def install(names: list[str]) -> bool:
    """Install the Debian packages behind the needs; tell whether apt-get succeeded."""
    apt = _apt()
    if apt is None:
        return False
    packages = [NEEDS[name].package for name in names]
    print(f"   installing {' '.join(packages)} with apt-get", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "apt.log"
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            with log.open("a") as output:
                done = subprocess.run(
                    [*apt, *arguments], stdout=output, stderr=subprocess.STDOUT, env=environment
                )
            if done.returncode:
                print(f"   apt-get {arguments[0]} failed; the end of its log:")
                print("\n".join(log.read_text(errors="replace").splitlines()[-15:]))
                return False
    find.cache_clear()
    return True


def main(arguments: list[str] | None = None) -> int:
    """Report on every need, install what is missing if asked to; 1 if CI would have to skip."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--install", action="store_true", help="install what is missing")
    options = parser.parse_args(arguments)

    absent = missing()
    if absent and options.install:
        install(absent)
        absent = missing()
    for name in NEEDS:
        print(f"   {complaint(name)}" if name in absent else f"   {name}: {find(name)}")
    if not absent:
        return 0
    if in_ci():
        print("   CI skips nothing, so this is an error.")
        return 1
    print("   Only the tests that need it are skipped, each with this reason.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
