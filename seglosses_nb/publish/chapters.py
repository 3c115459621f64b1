"""Runs chapters: each with papermill in a process of its own, several at a time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seglosses_nb.publish.parameters import Notebook

WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Job:
    """A notebook to run, and the empty folder of its own that it may use meanwhile."""

    name: str
    notebook: Notebook
    folder: Path
    """Where it runs: the chapter's own folder, as when its author opens it."""
    scratch: Path
    timeout: float


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    job: Job
    seconds: float
    executed: Path | None
    """The notebook with its outputs; None when the run ended before there was one."""
    log: Path
    problem: str | None
    """One line that says which cell failed and why; None when all is well."""


def run(
    jobs: Iterable[Job], at_once: int, watch: Callable[[list[str], Outcome | None], None]
) -> None:
    """Run the jobs; `watch` hears what is running, and of each outcome as it comes.

    Whatever happens, no process is left behind.
    """
    waiting = list(jobs)
    running: list[tuple[Job, subprocess.Popen[bytes], float]] = []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                running.append((job, _start(job), time.perf_counter()))
            watch([job.name for job, _, _ in running], None)
            time.sleep(0.05)
            for entry in list(running):
                job, process, began = entry
                seconds = time.perf_counter() - began
                late = seconds > job.timeout
                if process.poll() is None and not late:
                    continue
                running.remove(entry)
                if late:
                    kill(process)
                outcome = _outcome(job, seconds, late)
                watch([job.name for job, _, _ in running], outcome)
    finally:
        for _, process, _ in running:
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and all it started; kernels have sessions of their own: no group holds them."""
    import psutil

    if process.poll() is not None:
        return
    try:
        family = [psutil.Process(process.pid)]
        family += family[0].children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=5)
    process.wait()


def environment(scratch: Path) -> dict[str, str]:
    """The environment of every process: one thread, and nobody's personal settings."""
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "IPYTHONDIR": str(scratch / "ipython"),
        "JUPYTER_PREFER_ENV_PATH": "1",
    }


def problem_in(notebook: Notebook) -> str | None:
    """The first thing in an executed notebook that must not be published."""
    for index, cell in _numbered(notebook):
        if cell["cell_type"] != "code":
            continue
        where = f"cell {index} (In [{cell.get('execution_count') or ' '}])"
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                number, source = _culprit(output["traceback"])
                message = one_line(output["evalue"]) or source
                return f"{where}{number}: {output['ename']}: {message}"
            if output["output_type"] == "stream" and output["name"] == "stderr":
                return f"{where}: wrote to stderr: {one_line(output['text'])}"
        if cell.get("execution_count") is None:
            empty = " (it is empty: delete it)" if not "".join(cell["source"]).strip() else ""
            return f"{where}: was not executed{empty}"
    return None


def one_line(text: str | list[str]) -> str:
    """The text without line breaks, cut where it gets long."""
    line = " ".join("".join(text).split())
    return line if len(line) <= 300 else line[:297] + "..."


def _start(job: Job) -> subprocess.Popen[bytes]:
    job.scratch.mkdir(parents=True)
    source = job.scratch / "input.ipynb"
    source.write_text(json.dumps(job.notebook), encoding="utf-8")
    paths = [source, job.scratch / "output.ipynb", job.folder, job.scratch / "result.json"]
    with (job.scratch / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-P", str(WORKER), *map(str, paths)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal is for the build to handle, not for each of its children
            start_new_session=True,
            env=environment(job.scratch),
        )


def _outcome(job: Job, seconds: float, late: bool) -> Outcome:
    output, result, log = (
        job.scratch / "output.ipynb",
        job.scratch / "result.json",
        job.scratch / "log",
    )
    executed: Notebook | None = _json(output)
    error: dict[str, str] | None
    if late:
        error = {"type": "Timeout", "message": f"still running after {job.timeout:g} s"}
    elif (finished := _json(result)) is None:
        said = one_line(log.read_text(encoding="utf-8", errors="replace")[-250:])
        error = {
            "type": "Crash",
            "message": f"the process that ran it ended without a result; it last said: {said}",
        }
    else:
        error, seconds = finished["error"], finished["seconds"]

    problem = problem_in(executed) if executed else None
    if error and not (problem and error["type"] in problem):
        where = _unfinished(executed)
        problem = f"{where}: {error['type']}: {one_line(error['message'])}"
    elif executed is None and problem is None:
        problem = "there is no executed notebook"
    if executed is not None:
        # the paths of this machine, and nothing that the record does not say better
        executed["metadata"].pop("papermill", None)
        output.write_text(
            json.dumps(executed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return Outcome(job, seconds, output if executed else None, log, problem)


def _culprit(traceback: list[str]) -> tuple[str, str]:
    """The line of the cell that an error came from: IPython marks it in the outermost frame."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(traceback))
    marked = re.search(r"^-+> *(\d+) +(.*)$", plain, re.MULTILINE)
    return (f", line {marked[1]}", one_line(marked[2])) if marked else ("", "")


def _unfinished(notebook: Notebook | None) -> str:
    """The cell that was running when the run ended: the last one that papermill started."""
    where = "before the first cell"
    for index, cell in _numbered(notebook or {"cells": []}):
        if cell["cell_type"] == "code" and cell["metadata"].get("papermill", {}).get("start_time"):
            where = f"cell {index}"
    return where


def _numbered(notebook: Notebook) -> Iterator[tuple[int, dict[str, Any]]]:
    """The cells with their numbers in the source, which lacks papermill's notes on an error."""
    own = (
        c
        for c in notebook["cells"]
        if "papermill-error-cell-tag" not in c["metadata"].get("tags", [])
    )
    yield from enumerate(own)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
