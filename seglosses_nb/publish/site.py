"""Makes the pages from executed chapters, and puts them in place of the old ones in one step."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from seglosses_nb.publish import chapters, fingerprint
from seglosses_nb.publish.book import Book, Document

STAMP = ".seglosses-site"
"""A file in the site that holds the fingerprint of what it was made from."""
RECORDS = "_records"
NOTEBOOKS = "_notebooks"
"""What the Sphinx extension reads: the records of the runs, and the chapters to download."""


def recover(book: Book) -> None:
    """Finish or undo a replacement that was cut off between its two steps."""
    old = _old(book)
    if old.exists() and not book.site.exists():
        old.rename(book.site)
    shutil.rmtree(old, ignore_errors=True)


def wanted(
    book: Book, executed: Callable[[Document], Path], record: Callable[[Document], Path], pins: str
) -> str:
    """The fingerprint of everything that the site is made from."""
    files = [
        book.root / "_config.yml",
        book.root / "_toc.yml",
        *(book.root / f for f in book.content_files()),
    ]
    files += [chapter.source for chapter in book.chapters]
    made = [path(chapter) for chapter in book.chapters for path in (executed, record)]
    return fingerprint.of_value(
        [
            fingerprint.of_files(book.root, files),
            fingerprint.of_files(book.root, made),
            fingerprint.of_publisher(),
            pins,
        ]
    )


def is_current(book: Book, key: str) -> bool:
    """Whether the site in place was made from exactly this."""
    stamp = book.site / STAMP
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == key


def make(
    book: Book,
    executed: Callable[[Document], Path],
    record: Callable[[Document], Path],
    key: str,
    scratch: Path,
) -> list[str]:
    """Build the pages and put them in place, or return what is wrong and leave the old ones."""
    tree = book.build / "tree"
    _plant(book, executed, record, tree)
    log = book.build / "sphinx.log"
    command = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"
    arguments = [
        "build",
        str(tree),
        "--path-output",
        str(scratch),
        "-n",
        "-W",
        "--keep-going",
        "-q",
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=chapters.environment(scratch) | {"NO_COLOR": "1"},
        )
        try:
            status = process.wait()
        finally:
            chapters.kill(process)
    html = scratch / "_build" / "html"
    if status != 0 or not (html / "index.html").is_file():
        return complaints(log.read_text(encoding="utf-8", errors="replace"), tree)
    for chapter in book.chapters:
        # what a reader downloads is the chapter ready to run, not the outputs of our run
        shutil.copyfile(chapter.source, html / "_sources" / f"{chapter.name}.ipynb")
    (html / ".nojekyll").touch()
    (html / STAMP).write_text(key, encoding="utf-8")
    _replace(book, html)
    return []


def complaints(log: str, tree: Path) -> list[str]:
    """What a Sphinx log says is wrong, with the places as the author knows them."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", log).replace(f"{tree}/", "")
    # MyST-NB numbers the lines of a notebook from 10000 in cell 0, from 20000 in cell 1 ...
    plain = re.sub(
        r"(\.ipynb):(\d+)(\d{4}):",
        lambda found: f"{found[1]}: cell {int(found[2]) - 1}, line {int(found[3])}:",
        plain,
    )
    lines = [line.strip() for line in plain.splitlines()]
    found = [
        line
        for line in lines
        if re.search(r"\b(WARNING|ERROR|CRITICAL)\b|\w+(Error|Exception): ", line)
    ]
    return list(dict.fromkeys(found)) or [line for line in lines if line][-5:]


def _plant(
    book: Book, executed: Callable[[Document], Path], record: Callable[[Document], Path], tree: Path
) -> None:
    """Lay out what Sphinx reads, new each time: no warning may hide behind an earlier build."""
    shutil.rmtree(tree, ignore_errors=True)
    copies = {name: book.root / name for name in map(Path, ("_config.yml", "_toc.yml"))}
    copies |= {name: book.root / name for name in book.content_files()}
    for chapter in book.chapters:
        copies[Path(f"{chapter.name}.ipynb")] = executed(chapter)
        copies[Path(RECORDS, f"{chapter.name}.json")] = record(chapter)
        copies[Path(NOTEBOOKS, f"{chapter.name}.ipynb")] = chapter.source
    for name, source in copies.items():
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def _replace(book: Book, html: Path) -> None:
    """Two renames with nothing in between; `recover` mends what a power cut leaves."""
    old = _old(book)
    signals = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        if book.site.exists():
            book.site.rename(old)
        html.rename(book.site)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    shutil.rmtree(old, ignore_errors=True)


def _old(book: Book) -> Path:
    return book.build / "site.old"
