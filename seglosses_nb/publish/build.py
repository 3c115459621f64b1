"""The main job: bring every chapter and the site up to date, and nothing more than that.

Below `_build/`: `chapters/` the last good run of each chapter, a notebook and the record of what it
was made from; `failed/` the notebooks of failing runs, until they are mended; `runs/` what
`seglosses run` made; `tree/` what Sphinx read and `sphinx.log` what it said; `site/` the pages.
While a build works, it keeps everything unfinished in `scratch/`.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

from seglosses_nb import _version
from seglosses_nb.publish import chapters, fingerprint, parameters, site
from seglosses_nb.publish.book import Book, Document, PublishError

Record = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What the command line can ask of a build."""

    only: tuple[str, ...] = ()
    jobs: int = 2
    parameters: Mapping[str, Any] = field(default_factory=dict)
    force: bool = False
    site: bool = True
    max_minutes: float | None = None
    timeout: float = 1800.0
    wait: bool = False


class Build:
    """One run of the main job. A chapter's last good run is a notebook and its record."""

    def __init__(self, book: Book, options: Options) -> None:
        self.book = book
        self.options = options
        self.selected = tuple(dict.fromkeys(map(book.chapter, options.only))) or book.chapters
        self.scratch = book.build / "scratch"
        self.sources = {c: _notebook(c) for c in book.chapters}

    # what there is, and what is wanted

    @cached_property
    def pins(self) -> str:
        """The fingerprint of the environment."""
        return fingerprint.of_pins(self.book.root / "requirements.txt")

    @cached_property
    def package(self) -> str:
        """The fingerprint of the package."""
        return fingerprint.of_package()

    def executed(self, chapter: Document) -> Path:
        """Where the chapter's last good run is kept."""
        return self.book.build / "chapters" / f"{chapter.name}.ipynb"

    def record(self, chapter: Document) -> Path:
        """Where it says what that run was made from."""
        return self.executed(chapter).with_suffix(".json")

    def failed(self, chapter: Document) -> Path:
        """Where the notebook of a run that failed is kept, until the chapter succeeds."""
        return self.book.build / "failed" / f"{chapter.name}.ipynb"

    def changes(self, chapter: Document) -> dict[str, Any]:
        """The parameters that the chapter is to be run with instead of its own."""
        if chapter in self.selected:
            current = parameters.defaults(self.sources[chapter], chapter.short_name)
            return parameters.changes(current, self.options.parameters)
        # a chapter that was not asked for may keep the parameters that it was last run with
        known = self._read(chapter)
        return known["changed"] if known else {}

    def ingredients(self, chapter: Document) -> dict[str, str]:
        """What the outcome of a run depends on."""
        return {
            "notebook": fingerprint.of_bytes(chapter.source.read_bytes()),
            "parameters": fingerprint.of_value(self.changes(chapter)),
            "package": self.package,
            "pins": self.pins,
        }

    def reason(self, chapter: Document) -> str | None:
        """Why the chapter has to be run; None when its last run still holds."""
        known = self._read(chapter)
        if known is None:
            return "failed last time" if self.failed(chapter).exists() else "never run"
        now = self.ingredients(chapter)
        changed = [part for part, value in now.items() if known["ingredients"].get(part) != value]
        if changed:
            return " and ".join(changed) + " changed"
        if fingerprint.of_bytes(self.executed(chapter).read_bytes()) != known["output"]:
            return "its executed notebook was touched"
        return None

    def _read(self, chapter: Document) -> Record | None:
        if not self.executed(chapter).is_file():
            return None
        try:
            return json.loads(self.record(chapter).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    # the job

    def run(self) -> int:
        """Do it all; the exit code."""
        self._check_parameters()
        with _lock(self.book, self.options.wait), _interruptible(), self._clean():
            site.recover(self.book)
            reasons = {c: "forced" if self.options.force else self.reason(c) for c in self.selected}
            due = {chapter: reason for chapter, reason in reasons.items() if reason}
            for chapter in reasons.keys() - due.keys():
                self._forget_failure(chapter)
            problems = self._run_chapters(due) if due else {}
            seconds = self._report_times(due, problems)
            for chapter, problem in problems.items():
                kept = self.failed(chapter)
                where = f" (executed notebook: {_short(kept)})" if kept.exists() else ""
                print(f"FAILED {chapter.short_name}: {problem}{where}")
            if problems:
                print(
                    f"{len(problems)} of {len(self.selected)} chapters failed; "
                    "the site was left as it was."
                )
                return 1
            if self.options.site and not self._build_site():
                return 1
        limit = self.options.max_minutes
        if limit is not None and seconds > 60 * limit:
            print(
                f"FAILED the chapters took {seconds / 60:.1f} minutes together; "
                f"--max-minutes allows {limit:g}."
            )
            return 1
        return 0

    def _check_parameters(self) -> None:
        if not self.options.parameters:
            return
        known = {c: parameters.defaults(self.sources[c], c.short_name) for c in self.selected}
        for name in self.options.parameters:
            if not any(name in values for values in known.values()):
                listed = (
                    ", ".join(sorted({n for values in known.values() for n in values})) or "none"
                )
                raise PublishError(
                    f"-p {name}: none of the chapters to run has that parameter; they have {listed}"
                )

    def _run_chapters(self, due: Mapping[Document, str]) -> dict[Document, str]:
        from tqdm import tqdm

        by_name = {chapter.name: chapter for chapter in due}
        problems: dict[Document, str] = {}
        print(
            f"Running {len(due)} of {len(self.book.chapters)} chapters, "
            f"{self.options.jobs} at a time.",
            flush=True,
        )
        with tqdm(
            total=len(due), unit="chapter", dynamic_ncols=True, leave=False, file=sys.stderr
        ) as bar:

            def watch(running: list[str], outcome: chapters.Outcome | None) -> None:
                bar.set_postfix_str(
                    ", ".join(name.rpartition("/")[2] for name in running), refresh=False
                )
                if outcome is None:
                    if bar.fp.isatty():
                        bar.refresh()
                    return
                chapter = by_name[outcome.job.name]
                said = self._keep(chapter, outcome)
                if said:
                    problems[chapter] = said
                mark = "failed" if said else "ran"
                bar.update()
                bar.write(
                    f"  {mark:6} {chapter.short_name} in {outcome.seconds:.1f} s ({due[chapter]})"
                )
                sys.stdout.flush()

            # the longest goes first, so that none is left running alone at the end
            order = sorted(due, key=lambda c: -((self._read(c) or {}).get("seconds", 0.0)))
            chapters.run([self._job(c) for c in order], self.options.jobs, watch)
        return {chapter: problems[chapter] for chapter in due if chapter in problems}

    def _job(self, chapter: Document) -> chapters.Job:
        return chapters.Job(
            name=chapter.name,
            notebook=parameters.merge(
                self.sources[chapter], self.changes(chapter), chapter.short_name
            ),
            folder=chapter.source.parent,
            scratch=self.scratch / chapter.name,
            timeout=self.options.timeout,
        )

    def _keep(self, chapter: Document, outcome: chapters.Outcome) -> str | None:
        """Put a run where it belongs: the notebook first, its record last."""
        if outcome.problem or outcome.executed is None:
            if outcome.executed:
                _move(outcome.executed, self.failed(chapter))
            else:
                _move(outcome.log, self.failed(chapter).with_suffix(".log"))
            return outcome.problem
        changed = self.changes(chapter)
        record: Record = {
            "chapter": chapter.name,
            "ingredients": self.ingredients(chapter),
            "output": fingerprint.of_bytes(outcome.executed.read_bytes()),
            "parameters": parameters.defaults(self.sources[chapter], chapter.short_name) | changed,
            "changed": changed,
            "seconds": outcome.seconds,
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": {
                "Python": platform.python_version(),
                "torch": fingerprint.version("torch"),
                "numpy": fingerprint.version("numpy"),
                "seglosses_nb": _version.__version__,
            },
        }
        fresh = outcome.job.scratch / "record.json"
        fresh.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        _move(outcome.executed, self.executed(chapter))
        _move(fresh, self.record(chapter))
        self._forget_failure(chapter)
        return None

    def _forget_failure(self, chapter: Document) -> None:
        for stale in (self.failed(chapter), self.failed(chapter).with_suffix(".log")):
            stale.unlink(missing_ok=True)

    def _report_times(self, due: Mapping[Document, str], problems: Mapping[Document, str]) -> float:
        known = {c: record["seconds"] for c in self.book.chapters if (record := self._read(c))}
        for chapter, seconds in known.items():
            note = (
                "failed now; earlier run"
                if chapter in problems
                else "run now"
                if chapter in due
                else "kept"
            )
            print(f"  {chapter.short_name:44} {seconds:6.1f} s  {note}")
        total = sum(known.values())
        print(f"  {f'{len(known)} chapters together':44} {total:6.1f} s")
        return total

    def _build_site(self) -> bool:
        """Bring the site up to date if every chapter is; False when the pages have faults."""
        missing = {
            c: reason
            for c in self.book.chapters
            if c not in self.selected and (reason := self.reason(c))
        }
        if missing:
            listed = ", ".join(f"{c.short_name} ({reason})" for c, reason in missing.items())
            print(f"The site was not rebuilt, since these have no up-to-date run: {listed}.")
            print("Run `seglosses build` to bring everything up to date.")
            return True
        key = site.wanted(self.book, self.executed, self.record, self.pins)
        if site.is_current(self.book, key):
            print("Nothing changed for the site.")
        else:
            print("Building the pages ...", flush=True)
            began = time.perf_counter()
            complaints = site.make(
                self.book, self.executed, self.record, key, self.scratch / "html"
            )
            if complaints:
                print(*(f"  {line}" for line in complaints), sep="\n")
                log = _short(self.book.build / "sphinx.log")
                print(
                    f"FAILED the pages: the lines above (full log: {log}); "
                    "the site was left as it was."
                )
                return False
            print(f"  {len(self.book.documents)} pages in {time.perf_counter() - began:.1f} s")
        print(f"The site is {self.book.site / 'index.html'}")
        print("Open that file in a browser, or run `seglosses serve`.")
        return True

    @contextlib.contextmanager
    def _clean(self) -> Iterator[None]:
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)
        try:
            yield
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)


def run_one(chapter: Document, values: Mapping[str, Any], output: Path, timeout: float) -> int:
    """Run one chapter by itself and leave the executed notebook at `output`; the exit code."""
    import tempfile

    notebook = _notebook(chapter)
    known = parameters.defaults(notebook, chapter.short_name)
    for name in values:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise PublishError(
                f"-p {name}: {chapter.short_name} has no such parameter; it has {listed}"
            )
    notebook = parameters.merge(notebook, parameters.changes(known, values), chapter.short_name)
    outcomes: list[chapters.Outcome] = []

    def watch(running: list[str], outcome: chapters.Outcome | None) -> None:
        if outcome:
            outcomes.append(outcome)
            if outcome.executed:
                _move(outcome.executed, output)

    print(f"Running {chapter.short_name} ...", flush=True)
    with _interruptible(), tempfile.TemporaryDirectory() as folder:
        job = chapters.Job(
            chapter.name, notebook, chapter.source.parent, Path(folder, "run"), timeout
        )
        chapters.run([job], 1, watch)
    (outcome,) = outcomes
    if outcome.problem:
        print(f"FAILED {chapter.short_name}: {outcome.problem}")
    if outcome.executed:
        print(f"The executed notebook is {output} ({outcome.seconds:.1f} s)")
    return 1 if outcome.problem else 0


def _notebook(chapter: Document) -> parameters.Notebook:
    try:
        notebook = json.loads(chapter.source.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise PublishError(f"{chapter.source} cannot be read as a notebook: {error}") from error
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise PublishError(
            f"{chapter.source} is not a notebook: it has no list of cells (nbformat 4 is wanted)"
        )
    return notebook


def _move(source: Path, target: Path) -> None:
    """Put a finished file in place; whoever looks sees the old one or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    try:
        # by copying, since the two may be on different file systems
        shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _short(path: Path) -> str:
    """The path as seen from the working directory, when it is below that."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


@contextlib.contextmanager
def _lock(book: Book, wait: bool) -> Iterator[None]:
    """Let one build at a time into the folder. The system frees the lock however the build ends."""
    import fcntl

    book.build.mkdir(exist_ok=True)
    with (book.build / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            other = f"another build is at work in {book.build} (process {file.read().strip()})"
            if not wait:
                raise PublishError(
                    f"{other}; wait until it has finished (--wait does), or stop it"
                ) from error
            print(f"Waiting: {other}.", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, and let neither cut short the tidying up that follows."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(each, stop) for each in signals]
    try:
        yield
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)
