"""Everything the book says about all losses at once, written from the registry.

A table that is typed by hand is wrong after the next change. These are not typed: the README's
table of losses, the index's table of families and every chapter's card come from
:data:`~seglosses_nb.LOSSES`, and a test says so when a written one is stale.

::

    python -m seglosses_nb.lab.tables --write    # what `make table` does
    python -m seglosses_nb.lab.tables --check    # exit code 1 if something is stale
"""

from __future__ import annotations

import argparse
import html
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import seglosses_nb
from seglosses_nb import LOSSES, LossInfo
from seglosses_nb.registry import FAMILIES

PARTS: Mapping[str, tuple[str, str]] = {
    "foundations": (
        "Foundations",
        "What every loss stands on: masks and logits, soft counts, image chunks, imbalance, and "
        "how a loss is judged.",
    ),
    "distribution": (
        "Distribution",
        "Each pixel is a draw. Compares the predicted distribution with the true one, pixel by "
        "pixel, and averages.",
    ),
    "region": (
        "Region",
        "Compares two masks: sums over a whole region first, then a ratio. Overlap, not accuracy.",
    ),
    "boundary": ("Boundary", "Compares two outlines: how far they are apart."),
    "compound": ("Compound", "Adds losses of different families, and says in which proportion."),
    "beyond": ("Beyond", "Looks at objects, topology, structure or the noise in the labels."),
    "together": ("Together", "All losses side by side: compared, related, chosen."),
}
"""Folder of the book -> its title and what its chapters do."""

UNITS: Mapping[str, str] = {"pixel": "pixel", "region": "image and class", "image": "image"}
"""What one unreduced value speaks about, in words."""

SHORT = 40
"""A fact of at most so many letters stands beside others on the card, a longer one by itself."""


# ------------------------------------------------------------------------------------------ tables


def loss_table(root: Path | None = None) -> str:
    """Return the table of all losses, in GitHub's Markdown, for the README.

    A loss links to its chapter where the checkout at ``root`` has one.
    """
    rows = ["| loss | module | family | one value per | what it is for |", "|---|---|---|---|---|"]
    for info in sorted(LOSSES.values(), key=lambda info: FAMILIES.index(info.family)):
        path = Path("book", f"{info.chapter}.ipynb")
        name = f"`{info.name}`"
        if root is not None and (root / path).is_file():
            name = f"[{name}]({path.as_posix()})"
        module = f"`{info.module.__name__}`" if info.module else ""
        cells = (name, module, info.family, UNITS[info.unit], info.summary)
        rows.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join(rows)


def family_table(root: Path) -> str:
    """Return the table of the book's parts, in MyST, for its index.

    It lists the chapters that ``_toc.yml`` names and that exist: nothing is promised.
    """
    toc = (root / "_toc.yml").read_text(encoding="utf-8")
    chapters: dict[str, list[str]] = {}
    for part, name in re.findall(r"^[\s-]*file:\s*book/(\w+)/(\w+)", toc, re.MULTILINE):
        if (root / "book" / part / f"{name}.ipynb").is_file():
            chapters.setdefault(part, []).append(f"{{doc}}`{part}/{name}`")
    rows = ["| part | what its chapters do | chapters |", "|---|---|---|"]
    for part, (title, sentence) in PARTS.items():
        if part in chapters:
            rows.append(f"| **{title}** | {sentence} | {', '.join(chapters[part])} |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


# -------------------------------------------------------------------------------------------- card


@dataclass(frozen=True)
class Card:
    """What the registry states about one loss, to be shown by a notebook."""

    info: LossInfo

    def facts(self) -> dict[str, list[str]]:
        """Return the facts in words; where there is nothing to say there is no entry."""
        info = self.info
        works = {
            "second derivatives": info.double_backward,
            "torch.compile": info.compile,
            "torch.func": info.func,
        }
        dimensions = [f"{d}-D" for d in info.space_dims or ()]
        free = "false positives are free"
        facts = {
            "Module": [f"`{info.module.__name__}`"] if info.module else [],
            "One value per": [UNITS[info.unit]],
            "Values": [f"{_interval(info.value_range)}; {info.minimum:g} at a perfect prediction"],
            "Targets": _joined(info.targets),
            "Images": [" or ".join(dimensions) or "of any dimension"],
            "Order of pixels": ["matters" if info.spatial else "does not matter"],
            "Empty target": ["false positives cost" if info.empty_target == "costs" else free],
            "Towards the truth": [
                "no step of one pixel raises it"
                if info.monotone
                else "a step of one pixel may raise it"
            ],
            "Learns": ["parameters of its own"] if info.stateful else [],
            "Time": [f"grows like {info.cost}, with n pixels"],
            "Works with": _joined(name for name, yes in works.items() if yes),
            "Fails with": _joined(name for name, yes in works.items() if not yes),
            "Larger values": [f"`{p}`: dearer {error}" for p, error in info.sides.items()],
            "Cannot see": [f"{what}: {why}" for what, why in info.blind_to.items()],
            "Is the same as": [case.statement for case in info.special_cases],
            "Differs from its source": list(info.deviations),
            "Elsewhere": _joined(f"{library} `{name}`" for library, name in info.aliases.items()),
            "Source": [source(info)],
        }
        return {name: values for name, values in facts.items() if values}

    def __repr__(self) -> str:
        lines = [f"{self.info.name} ({self.info.family})", self.info.summary]
        lines += [f"{name}: {'; '.join(values)}" for name, values in self.facts().items()]
        return "\n".join(line.replace("`", "") for line in lines)

    def _repr_html_(self) -> str:
        """Return the card for a page, in the page's own colours: it is fine in the dark."""
        info, facts = self.info, self.facts()
        short = [name for name, values in facts.items() if len("".join(values)) <= SHORT]
        return (
            '<div class="loss-card" style="border:1px solid rgba(128,128,128,.45);'
            "border-left:4px solid #0072B2;border-radius:.4rem;padding:.8rem 1rem;"
            'text-align:left">'
            f'<p style="margin:0 0 .4rem 0"><code>{html.escape(info.name)}</code> &middot; '
            f"{html.escape(info.family)}</p>"
            f'<p style="margin:0 0 .4rem 0"><strong>{_inline(info.summary)}</strong></p>'
            '<div class="math" style="overflow-x:auto;overflow-y:hidden" tabindex="0">'
            f"\\[{html.escape(info.formula)}\\]</div>"
            '<dl style="display:grid;grid-template-columns:repeat(auto-fill,minmax(10.5rem,1fr));'
            f'gap:.5rem 1rem;margin:0 0 .6rem 0;font-size:.9em">{_facts(facts, short)}</dl>'
            '<dl style="display:grid;gap:.5rem;margin:0;font-size:.9em">'
            f"{_facts(facts, [name for name in facts if name not in short])}</dl></div>"
        )


def card(name: str) -> Card:
    """Return the card of a loss; a notebook shows it as the last line of a cell.

    Raises:
        ValueError: there is no such loss.
    """
    if name not in LOSSES:
        raise ValueError(f"card: name is {name!r}, wanted a loss of LOSSES: {', '.join(LOSSES)}")
    return Card(LOSSES[name])


def source(info: LossInfo) -> str:
    """Return where a loss comes from, as its docstring's ``Cite`` section says it."""
    doc = inspect.getdoc(info.function) or ""
    found = re.search(r"^Cite:\n((?:[ \t]+.*\n?|\n)+)", doc, re.MULTILINE)
    text = " ".join(found.group(1).split()) if found else info.cite
    return f"{text.rstrip('.')}; {info.equation}" if info.equation else text.rstrip(".")


def _interval(bounds: tuple[float, float]) -> str:
    low, high = bounds
    left = f"[{low:g}" if math.isfinite(low) else "(−∞"
    right = f"{high:g}]" if math.isfinite(high) else "∞)"
    return f"{left}, {right}"


def _joined(words: Iterable[str]) -> list[str]:
    line = ", ".join(words)
    return [line] if line else []


def _inline(text: str) -> str:
    """Escape text for HTML and turn what stands between backticks into code."""
    return re.sub(r"(`{1,2})([^`]+)\1", r"<code>\2</code>", html.escape(text))


def _facts(facts: Mapping[str, list[str]], names: Iterable[str]) -> str:
    return "".join(
        f'<div><dt style="font-weight:600">{html.escape(name)}</dt>'
        f'<dd style="margin:0">{"<br>".join(map(_inline, facts[name]))}</dd></div>'
        for name in names
    )


# ----------------------------------------------------------------------------------------- writing

GENERATED: Mapping[str, tuple[str, Callable[[Path], str]]] = {
    "README.md": ("losses", loss_table),
    "book/index.md": ("parts", family_table),
}
"""File -> the name between its markers, and what writes that place."""


def begin(name: str) -> str:
    """Return the line before a generated part."""
    return f"<!-- {name}: written by `make table`, not by hand -->"


def end(name: str) -> str:
    """Return the line after a generated part."""
    return f"<!-- {name}: end -->"


def renew(text: str, name: str, table: str) -> str:
    """Return the text with what stands between its markers replaced by the table.

    Raises:
        ValueError: the markers are missing or stand there more than once.
    """
    parts = text.split(begin(name) + "\n")
    tail = parts[-1].split(end(name))
    if len(parts) != 2 or len(tail) != 2:
        raise ValueError(f"wanted one line {begin(name)!r} and one {end(name)!r} after it")
    return f"{parts[0]}{begin(name)}\n\n{table}\n\n{end(name)}{tail[1]}"


def stale(root: Path) -> dict[Path, str]:
    """Return the files whose generated part differs from the registry, with their new text."""
    changes = {}
    for file, (name, write) in GENERATED.items():
        path = root / file
        old = path.read_text(encoding="utf-8")
        try:
            new = renew(old, name, write(root))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        if new != old:
            changes[path] = new
    return changes


def main(arguments: list[str] | None = None) -> int:
    """Write or check the generated parts of the checkout that this package lies in."""
    parser = argparse.ArgumentParser(prog="seglosses_nb.lab.tables", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write the generated parts anew")
    what.add_argument("--check", action="store_true", help="exit with 1 if one of them is stale")
    options = parser.parse_args(arguments)

    root = Path(seglosses_nb.__file__).resolve().parents[1]
    if not (root / "_toc.yml").is_file():
        parser.error(f"{root} is no checkout of the repository: it has no _toc.yml")
    changes = stale(root)
    for path, text in changes.items():
        name = path.relative_to(root).as_posix()
        if options.write:
            path.write_text(text, encoding="utf-8")
            print(f"{name}: written")
        else:
            print(f"{name}: its generated table is stale; run `make table`", file=sys.stderr)
    if options.write and not changes:
        print("the generated tables are up to date")
    return 1 if changes and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
