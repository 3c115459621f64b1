"""`make new-loss`: what it writes can be imported and is red until it is filled in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from conftest import ROOT
from test_chapters import ADVICE, SECTIONS

from seglosses_nb.publish import scaffold
from seglosses_nb.publish.book import PublishError
from seglosses_nb.registry import FAMILIES

NEW = [
    ("tversky_loss", "region"),
    ("focal_loss", "distribution"),
    ("boundary_loss", "boundary"),
    ("combo_loss", "compound"),
    ("blob_loss", "beyond"),
]
FOLDERS = ("seglosses_nb", "tests", "book")
FILES = ("_toc.yml", "_config.yml", "pyproject.toml", "README.md")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a checkout that a loss may need, without what tools leave behind."""
    files = [folder / name for name in FILES]
    files += [path for name in FOLDERS for path in (folder / name).rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in files
        if "__pycache__" not in path.parts
    }


def copy_of_the_repository(folder: Path) -> Path:
    for name, data in contents(ROOT).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return copy_of_the_repository(tmp_path)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which one loss of every family was begun."""
    folder = copy_of_the_repository(tmp_path_factory.mktemp("begun"))
    for name, family in NEW:
        assert scaffold.main(name, family, folder) == 0
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a copy, so that it sees the copy's package and not this one."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_families_are_those_of_the_registry() -> None:
    assert tuple(scaffold.FAMILIES) == FAMILIES


def test_every_new_loss_can_be_imported_and_raises(begun: Path) -> None:
    code = """
import torch, seglosses_nb
from oracles import ORACLES
for name in %r:
    info = seglosses_nb.LOSSES[name]
    assert getattr(seglosses_nb, info.module.__name__) is info.module
    assert {name, info.module.__name__} <= set(seglosses_nb.__all__)
    z, y = torch.zeros(2, 1, 4, 4), torch.ones(2, 4, 4, dtype=torch.long)
    for call in (info.function, seglosses_nb.get_loss(name)):
        try:
            call(z, y)
        except NotImplementedError as error:
            assert name in str(error), error
        else:
            raise AssertionError(f"{name} is not red")
    try:
        ORACLES[name](z.numpy(), y.numpy())
    except NotImplementedError as error:
        assert name in str(error), error
    else:
        raise AssertionError(f"the oracle of {name} is not red")
print(*(f"{info.family}/{name}" for name, info in seglosses_nb.LOSSES.items()))
""" % [name for name, _ in NEW]
    done = run(begun, "-c", f"import sys; sys.path.insert(0, 'tests')\n{code}")
    assert done.returncode == 0, done.stderr
    assert {f"{family}/{name}" for name, family in NEW} <= set(done.stdout.split())


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=" ".join)
def test_what_is_written_is_well_formatted(begun: Path, arguments: list[str]) -> None:
    before = contents(ROOT)
    changed = [path for path, data in contents(begun).items() if before.get(path) != data]
    files = [path for path in changed if path.endswith((".py", ".ipynb"))]
    assert len(files) == 12  # five modules and chapters, __init__ and the oracles
    done = run(begun, "-m", "ruff", *arguments, "--no-cache", *files)
    assert done.returncode == 0, done.stdout


def test_the_tests_find_a_new_loss_and_are_red(begun: Path) -> None:
    done = run(
        begun,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "tversky",
        "tests/test_oracles.py",
    )
    assert done.returncode == 1, done.stdout
    assert "NotImplementedError: " in done.stdout
    assert "tversky_loss" in done.stdout


def test_the_parameters_of_oracle_and_loss_agree_from_the_start(begun: Path) -> None:
    done = run(begun, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "takes_the_parameters",
               "tests/test_oracles.py")  # fmt: skip
    assert done.returncode == 0, done.stdout


def text_of(notebook: nbformat.NotebookNode) -> str:
    return "\n".join(cell.source for cell in notebook.cells)


@pytest.mark.parametrize(("name", "family"), NEW)
def test_chapter_is_a_whole_one(begun: Path, name: str, family: str) -> None:
    path = begun / "book" / family / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    text = path.read_text(encoding="utf-8")
    assert "new_loss" not in text
    assert "the_new_family" not in text
    assert notebook.cells[1].metadata["tags"] == ["parameters"]
    assert notebook.cells[0].source.startswith(f"# {name.replace('_', ' ').capitalize()}\n")
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    headings = re.findall(r"^## (.+)$", text_of(notebook), re.MULTILINE)
    assert tuple(headings) == SECTIONS
    assert re.findall(r"^\| \*\*(.+?)\*\*", text_of(notebook), re.MULTILINE) == list(ADVICE)


def test_the_table_of_contents_has_every_chapter_in_its_part(begun: Path) -> None:
    parts = yaml.safe_load((begun / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    files = [[entry["file"] for entry in part["chapters"]] for part in parts]
    for name, family in NEW:
        (mine,) = [part for part in files if f"book/{family}/{name}" in part]
        assert all(file.startswith(f"book/{family}/") for file in mine), "a part of its own family"
    order = [file.split("/")[1] for part in files for file in part if file.count("/") == 2]
    assert list(dict.fromkeys(order)) == ["foundations", *FAMILIES]
    old = re.findall(r"file: (\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    new = [f"book/{family}/{name}" for name, family in NEW]
    assert [file for part in files for file in part if file not in new] == old


def test_only_what_was_announced_is_changed(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(checkout)
    scaffold.main("tversky_loss", "region", checkout)
    after = contents(checkout)
    changed = {path for path in after if before.get(path) != after[path]}
    assert changed == {
        "seglosses_nb/region.py",
        "seglosses_nb/__init__.py",
        "tests/oracles.py",
        "book/region/tversky_loss.ipynb",
        "_toc.yml",
    }
    said = capsys.readouterr().out
    assert all(path in said for path in changed)
    assert "make table" in said
    for path in changed & set(before):  # nothing that stood there is gone
        old, new = before[path].decode().split(), after[path].decode().split()
        assert set(old) - {")", "import"} <= set(new)


def test_a_second_time_is_refused_and_changes_nothing(checkout: Path) -> None:
    scaffold.main("tversky_loss", "region", checkout)
    before = contents(checkout)
    for family in ("region", "compound"):
        with pytest.raises(PublishError, match=r"there is a tversky_loss .* already.*region\.py"):
            scaffold.main("tversky_loss", family, checkout)
    assert contents(checkout) == before


@pytest.mark.parametrize(
    ("name", "family", "message"),
    [
        ("TverskyLoss", "region", r"NAME is 'TverskyLoss', wanted .* NAME=tversky_loss"),
        ("", "region", "NAME is ''"),
        ("tversky-loss", "region", "NAME is 'tversky-loss'"),
        ("_tversky", "region", "NAME is '_tversky'"),
        ("two__bars", "region", "NAME is 'two__bars'"),
        ("lambda", "region", "NAME is 'lambda'"),
        ("../evil", "region", r"NAME is '\.\./evil'"),
        ("tversky_loss", "overlap", r"FAMILY is 'overlap', wanted one of distribution, region"),
        ("tversky_loss", "", "FAMILY is ''"),
        ("dice_loss", "region", r"there is a dice_loss .* already"),
        ("prepare", "region", r"there is a prepare .* already, in seglosses_nb/contract\.py"),
        ("seg_loss", "region", r"there is a seg_loss \(or SegLoss\) already"),
        ("weights", "beyond", r"there is a weights .* already, in seglosses_nb/weights\.py"),
        ("soft_counts", "region", r"there is a soft_counts .* already, in book/foundations"),
    ],
)
def test_unusable_names_are_refused_and_change_nothing(
    checkout: Path, name: str, family: str, message: str
) -> None:
    (checkout / "book/foundations").mkdir(exist_ok=True)
    (checkout / "book/foundations/soft_counts.ipynb").write_text(json.dumps({"cells": []}))
    before = contents(checkout)
    with pytest.raises(PublishError, match=message):
        scaffold.main(name, family, checkout)
    assert contents(checkout) == before


def test_broken_code_is_named_and_not_touched(checkout: Path) -> None:
    (checkout / "seglosses_nb/region.py").write_text("def (:\n")
    before = contents(checkout)
    with pytest.raises(PublishError, match=r"region\.py is not valid Python, mend it first"):
        scaffold.main("tversky_loss", "region", checkout)
    assert contents(checkout) == before


def test_outside_a_checkout_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=r"has no _toc\.yml"):
        scaffold.main("tversky_loss", "region", tmp_path)


def test_the_command_line_reaches_it(checkout: Path) -> None:
    done = run(checkout, "-m", "seglosses_nb", "new-loss", "dice_loss", "region")
    assert done.returncode == 2
    assert "there is a dice_loss" in done.stderr
    assert run(checkout, "-m", "seglosses_nb", "new-loss", "new_loss", "region").returncode == 0
    assert (checkout / "book/region/new_loss.ipynb").is_file()
