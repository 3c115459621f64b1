"""The main job, on a book of three small chapters: what is run again, and what if one fails."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from seglosses_nb.__main__ import main
from seglosses_nb.publish import chapters, fingerprint, parameters, server, site
from seglosses_nb.publish.book import Book, PublishError

pytestmark = pytest.mark.xdist_group("publish")

CONFIG = """
title: A small book
author: nobody
only_build_toc_files: true
bibtex_bibfiles: [book/references.bib]
execute: {execute_notebooks: "off"}
parse: {myst_enable_extensions: [dollarmath]}
sphinx:
  extra_extensions: [sphinx_proof, sphinx_exercise, seglosses_nb.publish.sphinx_site]
  config:
    bibtex_reference_style: author_year
    suppress_warnings: [bibtex.duplicate_citation]
    myst_heading_anchors: 3
    nb_render_markdown_format: myst
    nb_merge_streams: true
"""
TOC = """
format: jb-book
root: book/index
defaults: {numbered: true}
parts:
  - caption: First
    chapters: [{file: book/first/alpha}, {file: book/first/beta}]
  - caption: Second
    chapters: [{file: book/second/gamma}, {file: book/glossary}, {file: book/references}]
"""
PAGES = {
    "index.md": "# A small book\n\nRead [](first/alpha.ipynb) and {eq}`eq-gamma`.\n",
    "glossary.md": "# Glossary\n\n```{glossary}\nsoft count\n  A sum of products.\n```\n",
    "references.md": "# References\n\n```{bibliography}\n```\n",
    "references.bib": "@article{dice1945, author={Dice, Lee R.}, title={Measures}, year={1945}, "
    "journal={Ecology}}\n",
}


def png() -> str:
    """A picture of one grey pixel, in base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    header = (1).to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0])
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


def text(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(source: str, **metadata: Any) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "metadata": metadata,
        "source": source,
        "outputs": [],
        "execution_count": None,
    }


def notebook(*cells: dict[str, Any]) -> dict[str, Any]:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {
        "cells": [{"id": f"cell-{number}", **cell} for number, cell in enumerate(cells)],
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


PARAMETERS = code("quick = True\nseed = 0  # of everything random", tags=["parameters"])
FIGURE = code(
    "import base64\nfrom IPython.display import Image\n"
    f"Image(base64.b64decode('{png()}'), format='png')",
    tags=["hide-input"],
    mystnb={
        "figure": {"caption": "A pixel, see {eq}`eq-gamma`.", "name": "fig-gamma-pixel"},
        "image": {"alt": "One grey pixel"},
    },
)
GAMMA = notebook(
    text(
        "# Gamma\n\nThe {term}`soft count` of {cite:t}`dice1945`, in {numref}`fig-gamma-pixel` "
        "and {ref}`ex-gamma-1`."
    ),
    PARAMETERS,
    text(
        "## The formula\n\n$$\nL = \\sum_i p_i\n$$ (eq-gamma)\n\n"
        "See [alpha](../first/alpha.ipynb#what-it-is-for)."
    ),
    FIGURE,
    code("from IPython.display import Markdown\nMarkdown('| $a$ |\\n|---|\\n| {eq}`eq-gamma` |')"),
    text("```{exercise} Why?\n:label: ex-gamma-1\n\nWhy $p_i$?\n```"),
    text("```{solution-start} ex-gamma-1\n:class: dropdown\n```"),
    code("assert seed >= 0\nprint('solved')"),
    text("```{solution-end}\n```"),
    text("## References\n\n```{bibliography}\n:filter: docname in docnames\n```"),
)


def simple(title: str, *more: str) -> dict[str, Any]:
    first = "print('quick' if quick else 'full', 'with seed', seed)"
    return notebook(
        text(f"# {title}\n\n## What it is for"),
        PARAMETERS,
        *(code(source) for source in (first, *more)),
    )


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def write_book(root: Path) -> None:
    (root / "book").mkdir(parents=True)
    (root / "_config.yml").write_text(CONFIG, encoding="utf-8")
    (root / "_toc.yml").write_text(TOC, encoding="utf-8")
    for name, content in PAGES.items():
        (root / "book" / name).write_text(content, encoding="utf-8")
    write(root / "book/first/alpha.ipynb", simple("Alpha"))
    write(root / "book/first/beta.ipynb", simple("Beta"))
    write(root / "book/second/gamma.ipynb", GAMMA)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A package that stays as it is, whoever edits the real one while the tests run."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "region.py").write_text("a loss")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "PACKAGE", folder)
        yield folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Path:
    """A small book with everything up to date."""
    root = tmp_path_factory.mktemp("built") / "book"
    write_book(root)
    assert main(["build", "--root", str(root)]) == 0
    return root


@pytest.fixture
def book(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, elsewhere, which the test may change; it is the working directory."""
    root = tmp_path / "copy"
    shutil.copytree(built, root)
    monkeypatch.chdir(root)
    return root


class Runs:
    """Which chapters were run since the last look."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.seen = self._stamps()

    def _stamps(self) -> dict[str, str]:
        records = (self.root / "_build/chapters").rglob("*.json")
        return {path.stem: path.read_text() + str(path.stat().st_mtime_ns) for path in records}

    def since(self) -> set[str]:
        before, self.seen = self.seen, self._stamps()
        return {name for name, stamp in self.seen.items() if before.get(name) != stamp}


@pytest.fixture
def runs(book: Path) -> Runs:
    return Runs(book)


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All the files below a folder, with their dates."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def page(root: Path, name: str) -> str:
    return (root / "_build/site/book" / f"{name}.html").read_text(encoding="utf-8")


BUILD = """
import pathlib, sys
from seglosses_nb.__main__ import main
from seglosses_nb.publish import fingerprint
fingerprint.PACKAGE = pathlib.Path(sys.argv.pop(1))
sys.exit(main())
"""
"""The command line with the package that stays as it is."""


def edit(path: Path, old: str, new: str) -> None:
    content = path.read_text(encoding="utf-8")
    assert content.count(old) == 1
    path.write_text(content.replace(old, new), encoding="utf-8")


# --- the site


def test_a_build_makes_pages_from_executed_chapters(built: Path) -> None:
    assert "quick with seed 0" in page(built, "first/alpha")
    assert 'url=book/index.html"' in (built / "_build/site/index.html").read_text()
    gamma = page(built, "second/gamma")
    assert "solved" in gamma
    assert re.search(
        r'<img alt="One grey pixel"[^>]*>\s*<figcaption>\s*<p><span class="caption-number">Fig. 3',
        gamma,
    )
    assert '<a class="reference internal" href="#equation-eq-gamma">(3.1)</a>' in gamma


def test_every_chapter_says_what_it_was_run_with(built: Path) -> None:
    gamma = page(built, "second/gamma")
    stamp = gamma[gamma.index('<aside class="chapter-stamp"') :].partition("</aside>")[0]
    for name in ("Python", "torch", "numpy", "seglosses_nb"):
        assert re.search(rf"{name}&nbsp;\d+\.\d+", stamp)
    assert "quick = True; seed = 0" in stamp
    assert time.strftime('<time datetime="%Y-', time.gmtime()) in stamp
    assert "chapter-stamp" not in page(built, "glossary")


def test_the_notebook_to_download_is_the_clean_chapter(built: Path) -> None:
    link = re.search(
        r'<a class="download-notebook" href="([^"]+)" download="gamma.ipynb"\s+'
        r'data-notebook="([^"]+)">',
        page(built, "second/gamma"),
    )
    assert link is not None
    source = (built / "book/second/gamma.ipynb").read_bytes()
    assert (built / "_build/site/book/second" / link[1]).resolve().read_bytes() == source
    assert base64.b64decode(link[2]) == source


def test_no_page_loads_anything_from_another_host(built: Path) -> None:
    for path in (built / "_build/site").rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link|iframe)\b[^>]*?(?:src|href)="([^"]*)"', path.read_text()
        )
        assert [url for url in loaded if "//" in url] == [], path
        assert "thebe" not in path.read_text().lower(), path
    assert (built / "_build/site/_static/mathjax/tex-chtml-full.js").is_file()
    assert list((built / "_build/site/_static/mathjax/output/chtml/fonts").rglob("*.woff"))


def test_no_path_of_this_machine_is_published(built: Path) -> None:
    for name, (_, content) in contents(built / "_build/site").items():
        assert str(built).encode() not in content, name


# --- what is run again


def test_nothing_is_done_when_nothing_changed(
    book: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(book / "_build/site")
    began = time.perf_counter()
    assert main(["build"]) == 0
    assert time.perf_counter() - began < 2
    assert runs.since() == set()
    assert contents(book / "_build/site") == before
    said = capsys.readouterr().out
    assert "Nothing changed for the site." in said
    assert said.count("kept") == 3
    assert str(book / "_build/site/index.html") in said
    assert "seglosses serve" in said


def test_a_build_with_nothing_to_do_imports_nothing_heavy(book: Path, package: Path) -> None:
    script = (
        BUILD.replace("sys.exit(main())", "assert main() == 0")
        + "heavy = {'papermill', 'nbformat', 'nbclient', 'sphinx', 'jupyter_book'}\n"
        + "print(*sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, str(package), "build"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Nothing changed for the site." in done.stdout
    assert done.stdout.splitlines()[-1] == ""


def test_an_edit_runs_that_chapter_alone(
    book: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(book / "book/first/beta.ipynb", "with seed", "and the seed")
    assert main(["build"]) == 0
    assert runs.since() == {"beta"}
    assert "ran    first/beta in" in capsys.readouterr().out
    assert "quick and the seed 0" in page(book, "first/beta")
    assert main(["build"]) == 0
    assert runs.since() == set()


def test_an_edited_page_runs_no_chapter(book: Path, runs: Runs) -> None:
    edit(book / "book/index.md", "Read", "Please read")
    assert main(["build"]) == 0
    assert runs.since() == set()
    assert "Please read" in page(book, "index")


def test_a_damaged_run_is_run_again(book: Path, runs: Runs) -> None:
    executed = book / "_build/chapters/book/first/alpha.ipynb"
    executed.write_text(executed.read_text().replace("with seed 0", "with seed 9"))
    (book / "_build/chapters/book/first/beta.json").write_text('{"chapter": "cut o')
    assert main(["build", "--no-site"]) == 0
    assert runs.since() == {"alpha", "beta"}


def test_force_runs_what_is_up_to_date(book: Path, runs: Runs) -> None:
    assert main(["build", "--force", "--only", "alpha", "--no-site"]) == 0
    assert runs.since() == {"alpha"}


def test_package_and_pins_are_part_of_what_a_run_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "PACKAGE", tmp_path)
    for name in (
        "region.py",
        "lab/data/nuclei.npz",
        "publish/build.py",
        "__main__.py",
        "__pycache__/region.pyc",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("old")

    def changed(name: str, of: Callable[[], str] = fingerprint.of_package) -> bool:
        before = of()
        (tmp_path / name).write_text(f"new {name}")
        return of() != before

    assert changed("region.py")
    assert changed("lab/data/nuclei.npz")
    assert changed("boundary.py")
    assert not changed("publish/build.py")
    assert not changed("__main__.py")
    assert not changed("__pycache__/region.pyc")
    assert changed("publish/build.py".replace("build", "site"), fingerprint.of_publisher)

    pins = tmp_path / "requirements.txt"
    prints = []
    for content in ("numpy==2.0\n", "# why\nnumpy==2.0  # because\n", "numpy==2.1\n"):
        pins.write_text(content)
        prints.append(fingerprint.of_pins(pins))
    assert prints[0] == prints[1] != prints[2]
    monkeypatch.setattr(fingerprint, "version", lambda name: "2.2")
    assert fingerprint.of_pins(pins) != prints[2]


def test_a_changed_package_runs_every_chapter(
    book: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "of_package", lambda: "another")
    assert main(["build", "--no-site"]) == 0
    assert runs.since() == {"alpha", "beta", "gamma"}


# --- failures

FAILURES = {
    "error": ("a = 1\na / 0", r"cell 3 \(In \[3\]\), line 2: ZeroDivisionError: division by zero"),
    "assertion": (
        "assert seed == 1",
        r"cell 3 \(In \[3\]\), line 1: AssertionError: assert seed == 1",
    ),
    "message of several lines": (
        "raise ValueError('one\\n  two')",
        r"cell 3 \(In \[3\]\), line 1: ValueError: one two",
    ),
    "warning": (
        "import warnings\nwarnings.warn('look out')",
        r"cell 3 \(In \[3\]\): wrote to stderr: .*look out",
    ),
    "quiet exit": ("import sys\nsys.exit(0)", r"cell 3 \(In \[3\]\): SystemExit: 0"),
    "dead kernel": ("import os\nos._exit(1)", r"cell 3: DeadKernelError: Kernel died"),
    "empty cell": ("", r"cell 3 \(In \[ \]\): was not executed \(it is empty: delete it\)"),
    "endless": ("while True: pass", r"cell 3: Timeout: still running after 4 s"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failing_chapter_is_reported_and_the_others_run(
    name: str, book: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    source, message = FAILURES[name]
    write(book / "book/first/alpha.ipynb", simple("Alpha", source, "print('after')"))
    edit(book / "book/first/beta.ipynb", "with seed", "and the seed")
    before = contents(book / "_build/site")
    assert main(["build", "--timeout", "4" if name == "endless" else "60"]) == 1
    assert runs.since() == {"beta"}
    report = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED")]
    assert len(report) == 1
    assert re.match(rf"FAILED first/alpha: {message}", report[0]), report[0]
    assert "_build/failed/book/first/alpha.ipynb" in report[0]
    kept = json.loads((book / "_build/failed/book/first/alpha.ipynb").read_text())
    assert any("quick with seed 0" in str(cell.get("outputs")) for cell in kept["cells"])
    assert contents(book / "_build/site") == before
    assert not (book / "_build/scratch").exists()


def test_a_failed_chapter_is_retried_until_it_is_mended(
    book: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    good = (book / "book/first/alpha.ipynb").read_bytes()
    write(book / "book/first/alpha.ipynb", simple("Alpha", "print(unknown)"))
    for _ in range(2):
        assert main(["build", "--no-site"]) == 1
        assert (
            "FAILED first/alpha: cell 3 (In [3]), line 1: NameError: name 'unknown'"
            in capsys.readouterr().out
        )
    # the way back to what ran before needs no run
    (book / "book/first/alpha.ipynb").write_bytes(good)
    assert main(["build", "--no-site"]) == 0
    assert runs.since() == set()
    assert not (book / "_build/failed/book/first/alpha.ipynb").exists()
    write(book / "book/first/alpha.ipynb", simple("Alpha", "print('mended')"))
    assert main(["build"]) == 0
    assert runs.since() == {"alpha"}
    assert "mended" in page(book, "first/alpha")
    assert not (book / "_build/failed/book/first/alpha.ipynb").exists()


def test_broken_references_fail_the_pages_and_leave_the_site(
    book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(book / "_build/site")
    with (book / "book/index.md").open("a") as file:
        file.write(
            "\n{eq}`eq-delta` [](first/omega.ipynb) {cite:t}`nobody2000` {term}`dice` "
            "![](first/none.png)\n"
        )
    for _ in range(2):
        assert main(["build"]) == 1
        said = capsys.readouterr().out
        for complaint in (
            "eq-delta",
            "first/omega.ipynb",
            "nobody2000",
            "without alternative text",
            "none.png",
            "dice",
        ):
            assert re.search(
                rf"^  book/index.md:\d*: WARNING: .*{complaint}", said, re.MULTILINE
            ), complaint
        assert "FAILED the pages" in said
        assert contents(book / "_build/site") == before


def test_a_picture_of_a_chapter_needs_alternative_text_and_caption(
    book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gamma = json.loads((book / "book/second/gamma.ipynb").read_text())
    del gamma["cells"][3]["metadata"]["mystnb"]
    write(book / "book/second/gamma.ipynb", gamma)
    assert main(["build"]) == 1
    said = capsys.readouterr().out
    assert "picture without alternative text" in said
    assert "picture without caption" in said


def test_times_that_add_up_to_too_much_fail(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--max-minutes", "10", "--no-site"]) == 0
    record = book / "_build/chapters/book/first/alpha.json"
    record.write_text(re.sub(r'"seconds": [\d.]+', '"seconds": 601.0', record.read_text()))
    assert main(["build", "--max-minutes", "10", "--no-site"]) == 1
    assert "FAILED the chapters took 10." in capsys.readouterr().out


# --- parameters


def test_parameters_are_shown_where_they_are_defined(book: Path, runs: Runs) -> None:
    assert main(["build", "-p", "seed", "7", "--full"]) == 0
    assert runs.since() == {"alpha", "beta", "gamma"}
    alpha = page(book, "first/alpha")
    assert "full with seed 7" in alpha
    assert "quick = False; seed = 7" in alpha
    cell = re.sub("<[^>]+>", "", alpha[alpha.index("tag_parameters") :].partition("</pre>")[0])
    assert "quick = False\nseed = 7  # of everything random" in cell
    assert "injected" not in alpha
    # the clean notebook keeps its own
    assert (book / "_build/site/_sources/book/first/alpha.ipynb").read_bytes() == (
        book / "book/first/alpha.ipynb"
    ).read_bytes()
    assert main(["build", "--no-site"]) == 0
    assert runs.since() == {"alpha", "beta", "gamma"}
    assert main(["build", "-p", "seed", "0", "--no-site"]) == 0
    assert runs.since() == set()


def test_a_parameter_goes_to_the_chapters_that_have_it(book: Path, runs: Runs) -> None:
    gamma = json.loads((book / "book/second/gamma.ipynb").read_text())
    gamma["cells"][1]["source"] += "\nexponent: float = 2.0"
    write(book / "book/second/gamma.ipynb", gamma)
    assert main(["build", "-p", "exponent", "3.0", "--no-site"]) == 0
    assert runs.since() == {"gamma"}


@pytest.mark.parametrize(
    ("cell", "values", "merged"),
    [
        ("seed = 0", {"seed": 5}, "seed = 5"),
        ("quick = True  # short\nseed = 0", {"quick": False}, "quick = False  # short\nseed = 0"),
        ("name = (\n    'a'\n)\nz = 1", {"name": "b"}, 'name = (\n    "b"\n)\nz = 1'),
        ("rates = [\n    1,\n    2,\n]  # all", {"rates": [0.5]}, "rates = [0.5]  # all"),
        ("γ: float = 2.0  # naïve", {"γ": float("inf")}, 'γ: float = float("inf")  # naïve'),
        ("a = 1; b = 2", {"a": 10, "b": {"k": None}}, 'a = 10; b = {"k": None}'),
        ("text = ''", {"text": 'it\'s "so"'}, "text = 'it\\'s \"so\"'"),
    ],
)
def test_merging_changes_the_values_and_nothing_else(
    cell: str, values: dict[str, Any], merged: str
) -> None:
    before = notebook(text("# A"), code(cell, tags=["parameters"]), code("seed = 0"))
    after = parameters.merge(before, values, "a")
    assert after["cells"][1]["source"] == merged
    assert after["cells"][2] == before["cells"][2]
    found = parameters.defaults(after, "a")
    assert {name: found[name] for name in values if name != "γ"} == {
        n: v for n, v in values.items() if n != "γ"
    }
    scope: dict[str, Any] = {}
    exec(merged, scope)
    assert {name: scope[name] for name in values} == values


@pytest.mark.parametrize(
    ("given", "value"),
    [("3", 3), ("0.5", 0.5), ("false", False), ("[1, 2]", [1, 2]), ("~", None), ("dice", "dice")],
)
def test_values_are_read_as_yaml(given: str, value: Any) -> None:
    assert parameters.parse([("name", given)]) == {"name": value}


# --- a part of the book


def test_only_runs_the_named_and_says_why_there_is_no_site(
    book: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(book / "book/first/alpha.ipynb", "with seed", "and the seed")
    edit(book / "book/first/beta.ipynb", "with seed", "and the seed")
    before = contents(book / "_build/site")
    assert main(["build", "--only", "alpha"]) == 0
    assert runs.since() == {"alpha"}
    assert contents(book / "_build/site") == before
    said = capsys.readouterr().out
    assert "The site was not rebuilt, since these have no up-to-date run: " in said
    assert ": first/beta (notebook changed)." in said
    assert main(["build", "--only", "first/beta", "book/second/gamma.ipynb"]) == 0
    assert runs.since() == {"beta"}
    assert "quick and the seed 0" in page(book, "first/alpha")


def test_only_keeps_the_parameters_of_the_others(book: Path, runs: Runs) -> None:
    assert main(["build", "--only", "alpha", "-p", "seed", "3", "--no-site"]) == 0
    assert runs.since() == {"alpha"}
    edit(book / "book/first/beta.ipynb", "with seed", "and the seed")
    assert main(["build", "--only", "beta"]) == 0
    assert runs.since() == {"beta"}
    assert "quick with seed 3" in page(book, "first/alpha")
    assert "quick and the seed 0" in page(book, "first/beta")


def test_run_executes_one_chapter_beside_the_build(
    book: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    out = book / "elsewhere/out.ipynb"
    assert main(["run", "beta", "-p", "seed", "4", "-o", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    assert "quick with seed 4" in out.read_text()
    assert runs.since() == set()
    write(book / "book/first/beta.ipynb", simple("Beta", "1 / 0"))
    assert main(["run", "beta"]) == 1
    said = capsys.readouterr().out
    assert "FAILED first/beta: cell 3 (In [3]), line 1: ZeroDivisionError: division by zero" in said
    assert str(book / "_build/runs/book/first/beta.ipynb") in said


def test_run_takes_a_downloaded_chapter_in_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "alpha.ipynb", simple("Alpha"))
    assert main(["run", "alpha.ipynb"]) == 0
    assert "quick with seed 0" in (tmp_path / "alpha.executed.ipynb").read_text()


# --- arguments that cannot be used


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["build", "--only", "delta"],
            r"no chapter 'delta' in .*_toc\.yml; the chapters are first/alpha, first/beta",
        ),
        (["run", "glossary"], "no chapter 'glossary'"),
        (
            ["build", "-p", "sed", "1"],
            r"-p sed: none of the chapters .* has that parameter; they have quick, seed",
        ),
        (["build", "-p", "seed", "[1"], r"-p seed \[1: the value cannot be used"),
        (
            ["build", "-p", "seed", "2020-01-01"],
            r"-p seed 2020-01-01: the value cannot be used \(date is no plain value",
        ),
        (
            ["build", "-p", "seed=1", "2"],
            r"'seed=1' is not a parameter's name; write e\.g\. -p seed 1",
        ),
        (["build", "-p", "seed", "1", "-p", "seed", "2"], "-p seed is given twice"),
        (
            ["build", "--full", "-p", "quick", "true"],
            "--full means -p quick false; give one of the two",
        ),
        (
            ["run", "alpha", "-p", "sed", "1"],
            "-p sed: first/alpha has no such parameter; it has quick, seed",
        ),
        (["build", "--root", "book"], r"--root: .*book has no _toc\.yml"),
        (["serve", "--port", "-1"], "--port -1 cannot be used"),
        (["show", "dice_lss"], r"no loss is called 'dice_lss'; did you mean dice_loss\?"),
        (
            ["check", "seglosses_nb.dice_loss"],
            r"is not MODULE:NAME; write e\.g\. seglosses_nb:dice_loss",
        ),
        (["check", "no_such_module:loss"], "cannot import 'no_such_module': ModuleNotFoundError"),
        (["check", "seglosses_nb:no_such_loss"], "module 'seglosses_nb' has no 'no_such_loss'"),
    ],
)
def test_unusable_arguments_are_explained(
    arguments: list[str], message: str, book: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"seglosses {arguments[0]}: ")
    assert re.search(message, said.err), said.err
    assert runs.since() == set()


@pytest.mark.parametrize(
    "arguments", [["build", "--jobs", "0"], ["build", "--max-minutes", "x"], ["paint"], []]
)
def test_unknown_arguments_exit_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: seglosses" in capsys.readouterr().err


def break_toc(book: Path) -> None:
    edit(book / "_toc.yml", "book/first/beta", "book/first/omega")


def break_yaml(book: Path) -> None:
    (book / "_toc.yml").write_text("root: [")


def break_glob(book: Path) -> None:
    edit(book / "_toc.yml", "file: book/first/beta", "glob: book/first/*")


def break_notebook(book: Path) -> None:
    (book / "book/first/beta.ipynb").write_text("# a notebook?")


def break_parameters(book: Path) -> None:
    write(book / "book/first/beta.ipynb", notebook(text("# Beta"), code("quick = True")))


def make_ambiguous(book: Path) -> None:
    shutil.copyfile(book / "book/first/beta.ipynb", book / "book/second/beta.ipynb")
    edit(
        book / "_toc.yml",
        "{file: book/second/gamma}",
        "{file: book/second/gamma}, {file: book/second/beta}",
    )


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            break_toc,
            r"_toc\.yml names 'book/first/omega', but .* has neither book/first/omega\.ipynb nor",
        ),
        (break_yaml, r"_toc\.yml is not valid YAML"),
        (break_glob, r"`glob: book/first/\*` is not supported"),
        (break_notebook, r"beta\.ipynb cannot be read as a notebook"),
        (break_parameters, "first/beta has no code cell tagged `parameters`"),
        (make_ambiguous, "chapter 'beta' could be any of first/beta, second/beta"),
    ],
)
def test_a_broken_book_is_explained(
    broken: Callable[[Path], None], message: str, book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(book / "_build/site")
    broken(book)
    assert main(["build", "--only", "beta"]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert contents(book / "_build/site") == before


def test_outside_of_a_book_the_error_says_where_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["build"]) == 2
    assert (
        "run this in a clone of the repository, or name it with --root" in capsys.readouterr().err
    )


def test_a_second_build_is_turned_away(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (book / "_build/lock").open("w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["build"]) == 2
        assert re.search(
            r"another build is at work in .*_build \(process 4711\); wait", capsys.readouterr().err
        )
    assert main(["build"]) == 0


def test_a_build_can_wait_for_another(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = (book / "_build/lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    threading.Timer(0.5, lock.close).start()
    began = time.perf_counter()
    assert main(["build", "--wait"]) == 0
    assert time.perf_counter() - began > 0.4
    assert "Waiting: another build is at work" in capsys.readouterr().out


# --- interruptions


class Process:
    """A build in a process of its own, with all that it starts."""

    def __init__(self, root: Path, package: Path, *arguments: str) -> None:
        command = [sys.executable, "-c", BUILD, str(package), "build", *arguments]
        self.log = (root / "log").open("wb")
        self.popen = subprocess.Popen(command, cwd=root, stdout=self.log, stderr=subprocess.STDOUT)
        self.process = psutil.Process(self.popen.pid)

    def wait_for(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not what():
            assert self.popen.poll() is None, "the build ended too early"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.family = self.process.children(recursive=True)
        assert self.family

    def gone(self, within: float) -> bool:
        _, alive = psutil.wait_procs(self.family, timeout=within)
        return not alive


@pytest.fixture
def start(book: Path, package: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(*arguments: str) -> Process:
        started.append(Process(book, package, *arguments))
        return started[-1]

    yield start
    for each in started:
        if each.popen.poll() is None:
            chapters.kill(each.popen)
        each.log.close()


SLEEPER = "import pathlib, time\npathlib.Path('here').touch()\ntime.sleep(60)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_the_chapters_leaves_nothing(
    number: signal.Signals, book: Path, runs: Runs, start: Callable[..., Process]
) -> None:
    write(book / "book/first/alpha.ipynb", simple("Alpha", SLEEPER))
    edit(book / "book/first/beta.ipynb", "with seed", "and the seed")
    before = contents(book / "_build/site"), contents(book / "_build/chapters/book/second")
    build = start()
    build.wait_for((book / "book/first/here").exists)
    build.popen.send_signal(number)
    assert build.popen.wait(20) == 130
    assert build.gone(within=1)
    assert "interrupted" in (book / "log").read_text()
    assert "Traceback" not in (book / "log").read_text()
    assert (
        contents(book / "_build/site"),
        contents(book / "_build/chapters/book/second"),
    ) == before
    assert not (book / "_build/scratch").exists()
    assert not list((book / "_build").rglob("*.part"))
    # what was finished before is kept, and the rest is done next time
    write(book / "book/first/alpha.ipynb", simple("Alpha", "print('awake')"))
    runs.since()
    assert main(["build", "--no-site"]) == 0
    assert "alpha" in runs.since() <= {"alpha", "beta"}


def test_interrupting_the_pages_leaves_the_old_site(
    book: Path, start: Callable[..., Process]
) -> None:
    edit(book / "book/index.md", "Read", "Please read")
    before = contents(book / "_build/site")
    build = start()
    build.wait_for((book / "_build/scratch/html/_build").exists)
    build.popen.send_signal(signal.SIGINT)
    assert build.popen.wait(20) == 130
    assert build.gone(within=1)
    assert contents(book / "_build/site") == before
    assert not (book / "_build/scratch").exists()
    assert main(["build"]) == 0
    assert "Please read" in page(book, "index")


def test_a_killed_build_takes_its_children_along(book: Path, start: Callable[..., Process]) -> None:
    write(book / "book/first/alpha.ipynb", simple("Alpha", SLEEPER))
    build = start("--no-site")
    build.wait_for((book / "book/first/here").exists)
    build.popen.kill()
    assert build.gone(within=15)
    (book / "book/first/here").unlink()
    write(book / "book/first/alpha.ipynb", simple("Alpha", "print('awake')"))
    assert main(["build", "--no-site"]) == 0


def test_a_replacement_that_was_cut_off_is_mended(book: Path) -> None:
    before = contents(book / "_build/site")
    (book / "_build/site").rename(book / "_build/site.old")
    assert main(["build"]) == 0
    assert contents(book / "_build/site") == before
    shutil.copytree(book / "_build/site", book / "_build/site.old")
    site.recover(Book(book))
    assert contents(book / "_build/site") == before
    assert not (book / "_build/site.old").exists()


# --- showing it


def test_serve_shows_the_site_on_this_computer_only(book: Path) -> None:
    with server.server(Book(book), 0) as web:
        host, port = web.server_address[:2]
        assert host == "127.0.0.1"
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/book/first/alpha.html") as answer:
                assert b"quick with seed 0" in answer.read()
            with pytest.raises(urllib.error.HTTPError, match="404") as missing:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/../_toc.yml")
            missing.value.close()
        finally:
            web.shutdown()
            thread.join()
        with pytest.raises(
            PublishError, match=f"--port {port} cannot be used .* try another, or 0"
        ):
            server.server(Book(book), int(port))


def test_serve_without_a_site_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_book(tmp_path / "new")
    assert main(["serve", "--root", str(tmp_path / "new")]) == 2
    assert "run `seglosses build` first" in capsys.readouterr().err


# --- losses on the command line


def test_list_names_every_loss(capsys: pytest.CaptureFixture[str]) -> None:
    from seglosses_nb import LOSSES

    assert main(["list"]) == 0
    said = capsys.readouterr().out
    for name, info in LOSSES.items():
        assert re.search(rf"^  {name} +{re.escape(info.summary)}$", said, re.MULTILINE)


def test_show_prints_the_facts(capsys: pytest.CaptureFixture[str]) -> None:
    from seglosses_nb import LOSSES

    assert main(["show", "dice_loss"]) == 0
    said = capsys.readouterr().out
    assert "dice_loss" in said
    assert LOSSES["dice_loss"].formula in said
    assert LOSSES["dice_loss"].cite in said


CARELESS = """
def dice(logits, target):  # 0/0 where both masks are empty
    p = logits.sigmoid()
    return 1 - 2 * (p * target).sum() / (p + target).sum()
"""


@pytest.mark.parametrize(
    ("loss", "check", "exit_code"),
    [
        ("seglosses_nb:dice_loss", "extreme_logits", 0),
        ("seglosses_nb:DiceLoss", "extreme_logits", 0),
        ("careless_losses:dice", "gradcheck", 0),
        ("careless_losses:dice", "extreme_logits", 1),
    ],
)
def test_check_runs_the_battery_on_anybodys_loss(
    loss: str, check: str, exit_code: int, tmp_path: Path
) -> None:
    (tmp_path / "careless_losses.py").write_text(CARELESS)
    command = [sys.executable, "-m", "seglosses_nb", "check", loss, "--only", check]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (exit_code, "")
    assert check in done.stdout


def test_check_of_an_unknown_check_names_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "seglosses_nb:dice_loss", "--only", "gradchek"]) == 2
    assert "gradchek" in (said := capsys.readouterr().err)
    assert "gradcheck" in said


def test_a_listing_survives_a_reader_that_leaves() -> None:
    listing = f"{sys.executable} -m seglosses_nb list | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", listing], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert os.linesep.join(done.stdout.splitlines()) == "distribution"
