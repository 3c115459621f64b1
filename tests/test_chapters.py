"""The chapters keep the anatomy of the book: what every reader can rely on finding."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from seglosses_nb import LOSSES

ROOT = Path(__file__).parent.parent
BOOK = ROOT / "book"
CHAPTERS = sorted(path for path in BOOK.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
IDS = [str(path.relative_to(BOOK).with_suffix("")) for path in CHAPTERS]
BY_ID = dict(zip(IDS, CHAPTERS, strict=True))

SECTIONS = (
    "What it is for",
    "The formula",
    "By hand",
    "From formula to code",
    "Against a reference",
    "The gradient",
    "On image chunks",
    "Its parameters",
    "Relatives",
    "Pitfalls",
    "When to use it, when not",
    "Exercises",
    "References",
)
ADVICE = ("Good for", "Not for", "Start with", "Watch", "Instead")
LEFT_OUT = re.compile(r"<!-- left out: (?P<section>[^()]+?) \((?P<reason>[^)]+)\) -->")


def load(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["cells"]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def text(path: Path) -> str:
    return "\n\n".join(source(cell) for cell in load(path) if cell["cell_type"] == "markdown")


def headings(path: Path, level: int) -> list[str]:
    prose = re.sub(r"^```.*?^```", "", text(path), flags=re.S | re.M)
    return re.findall(rf"^{'#' * level} (.+)$", prose, flags=re.M)


def tagged(path: Path, tag: str) -> list[dict[str, Any]]:
    return [cell for cell in load(path) if tag in cell["metadata"].get("tags", [])]


@pytest.fixture(params=IDS)
def chapter(request: pytest.FixtureRequest) -> Path:
    return BY_ID[request.param]


def test_every_loss_has_its_chapter() -> None:
    assert {info.chapter for info in LOSSES.values()} <= set(IDS)


def test_every_chapter_is_in_the_table_of_contents() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = re.findall(r"book/([\w/]+)", json.dumps(toc))
    assert set(IDS) <= set(listed)


def test_it_is_stored_clean(chapter: Path) -> None:
    notebook = json.loads(chapter.read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], f"{cell['id']} has outputs: run nbstripout"
            assert cell["execution_count"] is None, cell["id"]
        assert set(cell["metadata"]) <= {"tags", "mystnb"}, cell["id"]
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(set(names)) == len(names)
    assert set(notebook["metadata"]) <= {"kernelspec", "language_info"}
    assert notebook["metadata"]["language_info"] == {"name": "python"}


def test_it_opens_with_a_title_and_one_sentence(chapter: Path) -> None:
    first = load(chapter)[0]
    assert first["cell_type"] == "markdown"
    title, _, answer = source(first).partition("\n")
    assert title.startswith("# ")
    assert re.fullmatch(r"[^\n]+\.", answer.strip()), "wanted one sentence on what it is for"
    assert len(headings(chapter, 1)) == 1


def test_its_parameters_come_next(chapter: Path) -> None:
    assert len(tagged(chapter, "parameters")) == 1
    cell = load(chapter)[1]
    assert "parameters" in cell["metadata"].get("tags", [])
    assert source(cell).splitlines() == ["quick = True", "seed = 0"]


def test_its_sections_stand_in_order(chapter: Path) -> None:
    found = headings(chapter, 2)
    if chapter.parent.name in ("foundations", "together"):
        assert found[0] == "What it is for"
        assert found[-2:] == ["Exercises", "References"]
        return
    left_out = {m["section"] for m in LEFT_OUT.finditer(text(chapter))}
    assert left_out <= set(SECTIONS)
    assert found == [section for section in SECTIONS if section not in left_out]


def test_advice_has_the_same_five_rows(chapter: Path) -> None:
    if chapter.parent.name in ("foundations", "together"):
        assert all(f"**{row}**" not in text(chapter) for row in ADVICE[:2])
        return
    section = text(chapter).split("## When to use it, when not")[1].split("\n## ")[0]
    assert re.findall(r"^\| \*\*(.+?)\*\*", section, flags=re.M) == list(ADVICE)


def test_exercises_have_hidden_executed_solutions(chapter: Path) -> None:
    cells = load(chapter)
    prose = text(chapter)
    exercises = re.findall(r"```\{exercise\}.*?\n:label: ([\w-]+)", prose)
    assert 2 <= len(exercises) <= 4
    for label in exercises:
        start = next(i for i, c in enumerate(cells) if f"{{solution-start}} {label}" in source(c))
        assert ":class: dropdown" in source(cells[start])
        end = next(i for i in range(start, len(cells)) if "{solution-end}" in source(cells[i]))
        code = [source(c) for c in cells[start:end] if c["cell_type"] == "code"]
        assert any("assert" in block for block in code), f"{label} is not executed and asserted"


def test_figures_have_caption_name_and_alt_text(chapter: Path) -> None:
    stem = chapter.stem
    for cell in load(chapter):
        draws = cell["cell_type"] == "code" and "plt.show()" in source(cell)
        if not draws:
            continue
        myst = cell["metadata"].get("mystnb", {})
        figure, alt = myst.get("figure", {}), myst.get("image", {}).get("alt", "")
        assert figure.get("caption", "").endswith("."), f"{cell['id']}: no caption"
        assert figure.get("name", "").startswith(f"fig-{stem}-"), cell["id"]
        assert len(alt) > 30, f"{cell['id']}: no alt text"
        assert alt != figure["caption"], cell["id"]


def test_its_code_is_plain(chapter: Path) -> None:
    for cell in load(chapter):
        if cell["cell_type"] != "code":
            continue
        for line in source(cell).splitlines():
            assert len(line) < 80, f"{cell['id']}: {line}"
            assert not re.match(r"\s*(!|%(?!%)|from \S+ import \*)", line), line


def test_a_loss_shows_its_card_its_source_and_its_formula(chapter: Path) -> None:
    if chapter.stem not in LOSSES:
        assert chapter.parent.name in ("foundations", "together")
        return
    code = "\n".join(source(c) for c in load(chapter) if c["cell_type"] == "code")
    assert f'card("{chapter.stem}")' in code
    assert "show_source(" in code
    assert "agreement(" in code
    assert f"(eq-{chapter.stem})" in text(chapter)


def test_no_sentence_stands_in_three_chapters() -> None:
    where = defaultdict(set)
    for name, path in BY_ID.items():
        for cell in load(path):
            if cell["cell_type"] == "markdown":
                for sentence in re.split(r"(?<=[.!?])\s+", " ".join(source(cell).split())):
                    if len(sentence.split()) >= 12:
                        where[sentence].add(name)
    assert {s: names for s, names in where.items() if len(names) >= 3} == {}
