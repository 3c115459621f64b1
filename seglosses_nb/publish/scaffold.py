"""Starts a loss: everything that a new one needs, in its place, with the formula left to write.

``seglosses new-loss tversky_loss region`` (or ``make new-loss``) writes the function with its facts
and its module line, the export, an oracle, the chapter and its line in ``_toc.yml``. All of it can
be imported and is well formatted, and the tests, which find a loss through the registry, are red
until the formula, the oracle and the chapter are written.
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Mapping
from pathlib import Path

from seglosses_nb.publish.book import CONTENT, Book, PublishError

FAMILIES: Mapping[str, str] = {
    "distribution": "Distribution-based losses: every pixel is a draw from a distribution.",
    "region": "Region-based losses: sums over a region first, then a ratio.",
    "boundary": "Boundary-based losses: how far two outlines are apart.",
    "compound": "Compound losses: sums of losses from different families.",
    "beyond": "Losses beyond the families: objects, topology, structure, noise in the labels.",
}
"""Family -> the first line of its module, which is written with the family's first loss."""

PACKAGE = "seglosses_nb"
ORACLES = "tests/oracles.py"
TEMPLATE = Path(__file__).with_name("template")

_CONTRACT = {
    "pixel": ("prepare", "reduce_pixels"),
    "region": ("Regions", "check_range", "prepare", "shortfall"),
}
_LINE = 100


def main(name: str, family: str, root: Path | None = None) -> int:
    """Begin a loss in the checkout at ``root`` (default: where we are) and say what comes next.

    Raises:
        PublishError: the name or the family is not usable, or something of this name is there.
            Nothing has been changed then.
    """
    folder = Book.locate(root).root
    files = plan(folder, name, family)
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    print(_next_steps(name, family, list(files)))
    return 0


def plan(root: Path, name: str, family: str) -> dict[str, str]:
    """Return the new text of every file that a loss of this name adds to or creates.

    Raises:
        PublishError: as :func:`main`.
    """
    _check_name(name)
    if family not in FAMILIES:
        raise PublishError(f"FAMILY is {family!r}, wanted one of {', '.join(FAMILIES)}")
    _check_free(root, name, family)

    kind = "region" if family == "region" else "pixel"
    module = f"{PACKAGE}/{family}.py"
    init, chapter = f"{PACKAGE}/__init__.py", f"{CONTENT}/{family}/{name}.ipynb"
    return {
        module: _with_loss(_read(root / module), kind, name, family),
        init: _with_export(_read(root / init), name, family),
        ORACLES: _with_oracle(_read(root / ORACLES), kind, name, family),
        chapter: _fill("chapter.ipynb", name, family),
        "_toc.yml": _with_toc_line(_read(root / "_toc.yml"), name, family),
    }


def class_name(name: str) -> str:
    """Return the name of the module: ``tversky_loss`` becomes ``TverskyLoss``."""
    return "".join(word.capitalize() for word in name.split("_"))


# ------------------------------------------------------------------------------------------ checks


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise PublishError(
            f"NAME is {name!r}, wanted the function's name in lower case with single underscores, "
            "as in NAME=tversky_loss"
        )


def _check_free(root: Path, name: str, family: str) -> None:
    """Refuse a name that anything has: two things of one name cannot be told apart later."""
    taken = sorted((root / CONTENT).glob(f"*/{name}.ipynb"))
    wanted = {name, class_name(name)}
    for path in [*sorted((root / PACKAGE).glob("*.py")), root / ORACLES]:
        if path.stem in wanted or wanted & _top_level_names(path):
            taken.append(path)
    if taken:
        places = ", ".join(path.relative_to(root).as_posix() for path in taken)
        raise PublishError(
            f"there is a {name} (or {class_name(name)}) already, in {places}; nothing was changed. "
            "Choose another name, or delete the old one first"
        )


def _top_level_names(path: Path) -> set[str]:
    names: set[str] = set()
    for node in _parse(path.read_text(encoding="utf-8"), path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def _parse(text: str, path: Path | str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise PublishError(f"{path} is not valid Python, mend it first: {error}") from error


# ------------------------------------------------------------------------------------------- texts


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _fill(template: str, name: str, family: str) -> str:
    text = (TEMPLATE / template).read_text(encoding="utf-8")
    title = name.replace("_", " ")
    for mark, value in {
        "the_new_loss": name,
        "TheNewLoss": class_name(name),
        "the_new_family": family,
        "The new loss": title[0].upper() + title[1:],
    }.items():
        text = text.replace(mark, value)
    return text


def _with_loss(text: str, kind: str, name: str, family: str) -> str:
    """The family's module with the loss at the end of its public part."""
    text = text or f'r"""{FAMILIES[family]}"""\n\nfrom __future__ import annotations\n'
    if kind == "region":
        text = _import(text, "collections.abc", ["Sequence"])
        text = _import(text, "typing", ["Any"])
    text = _import(text, "torch", ["Tensor"])
    text = _import(text, ".contract", list(_CONTRACT[kind]))
    text = _import(text, ".registry", ["SegLoss", "register"])
    loss = _fill(f"loss_{kind}.py.txt", name, family)
    # what follows a ruled heading are private parts
    return _insert(text, loss, r"^# -{20,} \w", start=0)


def _with_oracle(text: str, kind: str, name: str, family: str) -> str:
    """The oracles with one more at the end of the family's section, which is begun if need be."""
    oracle = _fill(f"oracle_{kind}.py.txt", name, family)
    heading = re.search(rf"^# -+ {family}$", text, re.MULTILINE)
    if heading:
        return _insert(text, oracle, r"^# -{20,} \w", start=heading.end())
    rule = "-" * (_LINE - len(family) - 3)
    return f"{text.rstrip()}\n\n\n# {rule} {family}\n\n\n{oracle}"


def _insert(text: str, block: str, before: str, start: int) -> str:
    """Put a block before the first line that matches or at the end, two lines from the others."""
    found = re.compile(before, re.MULTILINE).search(text, start)
    head, tail = (text[: found.start()], text[found.start() :]) if found else (text, "")
    return f"{head.rstrip()}\n\n\n{block.rstrip()}\n" + (f"\n\n{tail}" if tail else "")


def _with_export(text: str, name: str, family: str) -> str:
    """The package's public names with the function and the module among them."""
    names = [class_name(name), name]
    text = _import(text, f".{family}", names)
    tree = _parse(text, f"{PACKAGE}/__init__.py")
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            public = sorted({*ast.literal_eval(node.value), *names}, key=_order)
            lines = ["__all__ = [", *(f'    "{each}",' for each in public), "]"]
            return _replace_lines(text, node, lines)
    raise PublishError(f"{PACKAGE}/__init__.py has no __all__ to add {name} to")


def _import(text: str, module: str, names: list[str]) -> str:
    """Merge names into `from module import …`, or add that line where ruff wants it."""
    tree = _parse(text, module)
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom | ast.Import)]
    for node in imports:
        if isinstance(node, ast.ImportFrom) and _module(node) == module:
            merged = {alias.name for alias in node.names} | set(names)
            return _replace_lines(text, node, _import_lines(module, merged))
    new = _import_lines(module, set(names))
    lines = text.splitlines()
    group = [node for node in imports if _group(_module(node)) == _group(module)]
    later = [node for node in group if _module(node) > module]
    if later:
        at = later[0].lineno - 1
        return "\n".join(lines[:at] + new + lines[at:]) + "\n"
    earlier = [node for node in imports if _group(_module(node)) <= _group(module)]
    at = (earlier[-1].end_lineno or 0) if earlier else len(lines)
    gap = [] if group else [""]
    rest = lines[at:]
    if gap and rest and rest[0].strip():
        rest = ["", *rest]
    return "\n".join([*lines[:at], *gap, *new, *rest]) + "\n"


def _module(node: ast.ImportFrom | ast.Import) -> str:
    if isinstance(node, ast.ImportFrom):
        return "." * node.level + (node.module or "")
    return node.names[0].name


def _group(module: str) -> int:
    """The block of imports it stands in: __future__, the standard library, others', ours."""
    if module == "__future__":
        return 0
    if module.startswith("."):
        return 3
    return 1 if module.split(".")[0] in {"collections", "math", "typing"} else 2


def _import_lines(module: str, names: set[str]) -> list[str]:
    ordered = sorted(names, key=_order)
    line = f"from {module} import {', '.join(ordered)}"
    if len(line) <= _LINE:
        return [line]
    return [f"from {module} import (", *(f"    {name}," for name in ordered), ")"]


def _order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest: the order that ruff keeps."""
    if name.isupper():
        return 0, name
    return (1, name) if name[0].isupper() else (2, name)


def _replace_lines(text: str, node: ast.stmt, new: list[str]) -> str:
    lines = text.splitlines()
    return "\n".join([*lines[: node.lineno - 1], *new, *lines[node.end_lineno :]]) + "\n"


def _with_toc_line(text: str, name: str, family: str) -> str:
    """The table of contents with the chapter at the end of its part, which is begun if need be."""
    line = f"- file: {CONTENT}/{family}/{name}"
    lines = text.splitlines()
    same = [i for i, old in enumerate(lines) if re.match(rf"\s*- file: {CONTENT}/{family}/", old)]
    if same:
        indent = re.match(r"\s*", lines[same[-1]])
        lines.insert(same[-1] + 1, (indent[0] if indent else "") + line)
        return "\n".join(lines) + "\n"
    # parts are in the order of the families: after the last one that comes before this one
    order = ["foundations", *FAMILIES]
    before = "|".join(order[: order.index(family)])
    earlier = [
        i for i, old in enumerate(lines) if re.match(rf"\s*- file: {CONTENT}/({before})/", old)
    ]
    if not earlier:
        raise PublishError(f"_toc.yml has no part of {CONTENT}/ to put the {family} losses after")
    new = [f"  - caption: {family.capitalize()} losses", "    chapters:", f"      {line}"]
    lines[earlier[-1] + 1 : earlier[-1] + 1] = new
    return "\n".join(lines) + "\n"


def _next_steps(name: str, family: str, files: list[str]) -> str:
    written = "\n".join(f"  {path}" for path in files)
    return f"""{name} is begun. Written or added to:
{written}

The tests are red now, and that is meant. What is left, in an order that works:
  1. {ORACLES}: the formula once more, in NumPy loops, from the paper alone
  2. {PACKAGE}/{family}.py: the formula, its parameters, the docstring, and the facts in @register
  3. {CONTENT}/references.bib: the paper, with data that you have checked
  4. {CONTENT}/{family}/{name}.ipynb: the chapter
  5. make table, then make test until it is green
Search for "to be written" to find what is missing."""
