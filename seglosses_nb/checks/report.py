"""What a check is, and the report on what the checks found."""

from __future__ import annotations

import html
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import torch

from .promise import BrokenPromiseError, NotApplicableError, first_line
from .subject import Subject

Status = Literal["passed", "failed", "skipped"]

MARKS: dict[Status, str] = {"passed": "✓", "failed": "✗", "skipped": "–"}
WIDTH = 140  # of a line of the report


@dataclass(frozen=True)
class Result:
    """How one check ended.

    Attributes:
        name: the check.
        promise: what it promises, in one sentence.
        status: "passed", "failed" or "skipped".
        summary: why it was skipped, or the failure, in one line.
        message: the whole story of the failure.
        seconds: how long it took.
    """

    name: str
    promise: str
    status: Status
    summary: str = ""
    message: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Check:
    """A named promise, and the function that tries to catch a loss breaking it."""

    name: str
    promise: str
    function: Callable[[Subject], None]

    def run(self, subject: Subject) -> Result:
        """Run the check on a loss; whatever happens becomes a result."""
        status: Status = "passed"
        summary = message = ""
        start = time.perf_counter()
        try:
            with torch.random.fork_rng(devices=[]), torch.enable_grad():
                torch.manual_seed(subject.seed)
                self.function(subject)
        except NotApplicableError as reason:
            status, summary = "skipped", str(reason)
        except BrokenPromiseError as failure:
            status, summary = "failed", str(failure)
            message = failure.explain(self.promise)
        except Exception as error:
            status, summary = "failed", f"raised {first_line(error)}"
            message = f"promised: {self.promise}\n{traceback.format_exc()}"
        seconds = time.perf_counter() - start
        return Result(self.name, self.promise, status, " ".join(summary.split()), message, seconds)


def checks_of(module: ModuleType) -> list[Check]:
    """Return the functions ``check_<name>`` of a module; the docstring is the promise."""
    functions = [
        function
        for name, function in vars(module).items()
        if name.startswith("check_") and function.__module__ == module.__name__
    ]
    return [Check(f.__name__.removeprefix("check_"), f.__doc__.strip(), f) for f in functions]


@dataclass(frozen=True)
class Report:
    """What the battery found about one loss; prints as a table.

    Attributes:
        name: the loss.
        results: one per check, in the order in which they ran.
        notes: what was found out about the loss beforehand.
    """

    name: str
    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the checks that failed."""
        return self._with("failed")

    @property
    def skipped(self) -> tuple[str, ...]:
        """The names of the checks that did not apply."""
        return self._with("skipped")

    def _with(self, status: Status) -> tuple[str, ...]:
        return tuple(result.name for result in self.results if result.status == status)

    def __getitem__(self, name: str) -> Result:
        for result in self.results:
            if result.name == name:
                return result
        names = ", ".join(result.name for result in self.results)
        raise KeyError(f"no check {name!r} in this report, which has {names}")

    @property
    def conclusion(self) -> str:
        """The report in one line."""
        counts = ", ".join(f"{len(self._with(status))} {status}" for status in MARKS)
        seconds = sum(result.seconds for result in self.results)
        return f"{self.name}: {counts} in {seconds:.1f} s"

    def __str__(self) -> str:
        width = max((len(result.name) for result in self.results), default=0)
        lines = [f"note: {note}" for note in self.notes]
        for result in self.results:
            text = result.summary or result.promise
            mark = MARKS[result.status]
            lines.append(f"{mark} {result.name:{width}} {result.seconds:6.2f} s  {text}")
        lines = [line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..." for line in lines]
        for name in self.failed[:1]:
            lines += ["", f"The first failure, {name}", self[name].message]
        return "\n".join([*lines, "", self.conclusion])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{MARKS[r.status]}</td><td><code>{r.name}</code></td>"
            f'<td style="text-align: left">{html.escape(r.summary or r.promise)}</td></tr>'
            for r in self.results
        )
        return f"<table>{rows}</table><p>{html.escape(self.conclusion)}</p>"
