"""The book on disk: which documents `_toc.yml` names, and where the build keeps its things."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

CONTENT = "book"
"""The folder that holds the pages, the chapters and the static files."""


class PublishError(Exception):
    """Something the user can put right: a wrong name, a missing file, a build already running."""


@dataclass(frozen=True)
class Document:
    """One entry of the table of contents: a chapter (`.ipynb`) or a page (`.md`)."""

    name: str
    """As `_toc.yml` writes it, without suffix: `book/region/dice_loss`."""
    source: Path

    @property
    def is_chapter(self) -> bool:
        """Whether the document is a notebook, which has to be run."""
        return self.source.suffix == ".ipynb"

    @property
    def short_name(self) -> str:
        """The name without the content folder: `region/dice_loss`."""
        return self.name.removeprefix(f"{CONTENT}/")


@dataclass(frozen=True)
class Book:
    """A folder with `_toc.yml`, `_config.yml` and `book/`."""

    root: Path

    @classmethod
    def locate(cls, root: str | Path | None = None) -> Book:
        """The book at `root`; without it, the one that the working directory is in."""
        if root is not None:
            folder = Path(root).resolve()
            if not (folder / "_toc.yml").is_file():
                raise PublishError(
                    f"--root: {folder} has no _toc.yml; give the folder of _toc.yml and _config.yml"
                )
            return cls(folder)
        here = Path.cwd()
        for folder in (here, *here.parents):
            if (folder / "_toc.yml").is_file() and (folder / "_config.yml").is_file():
                return cls(folder)
        raise PublishError(
            f"no book here: neither {here} nor a folder above it has _toc.yml and _config.yml; "
            "run this in a clone of the repository, or name it with --root"
        )

    @property
    def build(self) -> Path:
        """Everything the build makes is below this folder; deleting it loses only time."""
        return self.root / "_build"

    @property
    def site(self) -> Path:
        """The published HTML."""
        return self.build / "site"

    @cached_property
    def documents(self) -> tuple[Document, ...]:
        """Every document of the table of contents, in its order."""
        toc = self._yaml("_toc.yml")
        names = list(_names(toc))
        if not names:
            raise PublishError(
                f"{self.root / '_toc.yml'} names no document; it needs at least `root: book/index`"
            )
        return tuple(self._document(name) for name in dict.fromkeys(names))

    @property
    def chapters(self) -> tuple[Document, ...]:
        """The documents that are run."""
        return tuple(document for document in self.documents if document.is_chapter)

    def chapter(self, name: str) -> Document:
        """The chapter called `dice_loss` or `region/dice_loss`, or that has this notebook."""
        wanted = name.removeprefix("./").removesuffix(".ipynb")
        found = [c for c in self.chapters if f"/{c.name}".endswith(f"/{wanted}")]
        if len(found) == 1:
            return found[0]
        known = ", ".join(c.short_name for c in self.chapters) or "none"
        if found:
            several = ", ".join(c.short_name for c in found)
            raise PublishError(
                f"chapter {name!r} could be any of {several}; say which, with its folder"
            )
        raise PublishError(
            f"no chapter {name!r} in {self.root / '_toc.yml'}; the chapters are {known}"
        )

    def content_files(self) -> Iterator[Path]:
        """What the site needs besides the chapters: pages, bibliography, static files."""
        for path in sorted((self.root / CONTENT).rglob("*")):
            relative = path.relative_to(self.root)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
            if path.is_file() and not hidden and path.suffix != ".ipynb":
                yield relative

    def _document(self, name: str) -> Document:
        stem = name.removesuffix(".ipynb").removesuffix(".md")
        if not stem.startswith(f"{CONTENT}/"):
            raise PublishError(
                f"_toc.yml: {name!r} is outside {CONTENT}/, where every page and chapter lives"
            )
        for suffix in (".ipynb", ".md"):
            if (self.root / (stem + suffix)).is_file():
                return Document(stem, self.root / (stem + suffix))
        raise PublishError(
            f"_toc.yml names {name!r}, but {self.root} has neither {stem}.ipynb nor {stem}.md; "
            "write it, or take the line out of _toc.yml"
        )

    def _yaml(self, name: str) -> Any:
        try:
            return yaml.safe_load((self.root / name).read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise PublishError(f"{self.root / name} is not valid YAML: {error}") from error


def _names(entry: Any) -> Iterator[str]:
    """The documents below an entry of the table of contents, in the order of the site."""
    if isinstance(entry, dict):
        if "glob" in entry:
            raise PublishError(
                f"_toc.yml: `glob: {entry['glob']}` is not supported; name each document, `file:`"
            )
        for key in ("root", "file"):
            if key in entry:
                yield str(entry[key])
        for value in entry.values():
            if isinstance(value, list):
                yield from _names(value)
    elif isinstance(entry, list):
        for item in entry:
            yield from _names(item)
