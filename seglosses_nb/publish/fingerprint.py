"""What changed since the last build, told by content: a fresh clone has fresh dates."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
"""The package that the chapters import."""


def of_bytes(content: bytes) -> str:
    """The fingerprint of some bytes."""
    return hashlib.sha256(content).hexdigest()


def of_value(value: Any) -> str:
    """The fingerprint of plain data."""
    return of_bytes(json.dumps(value, sort_keys=True).encode())


def of_files(root: Path, paths: Iterable[Path]) -> str:
    """The fingerprint of files: their names relative to `root`, and what is in them."""
    return of_value(
        [[path.relative_to(root).as_posix(), of_bytes(path.read_bytes())] for path in sorted(paths)]
    )


def of_package() -> str:
    """The package's sources and data, without what publishes: no chapter depends on that."""
    return of_files(
        PACKAGE,
        (
            path
            for path in _sources(PACKAGE)
            if path != PACKAGE / "__main__.py" and not path.is_relative_to(PACKAGE / "publish")
        ),
    )


def of_publisher() -> str:
    """The sources that turn executed chapters into pages."""
    return of_files(PACKAGE, _sources(PACKAGE / "publish"))


def of_pins(requirements: Path) -> str:
    """The pinned requirements, and the versions that are really installed of each."""
    lines: list[str] = []
    if requirements.is_file():
        text = requirements.read_text(encoding="utf-8")
        lines = [
            line for line in (raw.partition("#")[0].strip() for raw in text.splitlines()) if line
        ]
    names = [match.group() for line in lines if (match := re.match(r"[A-Za-z0-9][\w.-]*", line))]
    installed = {
        name: version(name) for name in names or ("torch", "numpy", "papermill", "jupyter-book")
    }
    return of_value([lines, installed, sys.version])


def version(distribution: str) -> str:
    """The installed version of a distribution."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _sources(folder: Path) -> Iterable[Path]:
    return (
        path
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name[0] != "."
    )
