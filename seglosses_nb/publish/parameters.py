"""What a chapter can be run with: the assignments in its cell tagged `parameters`.

New values replace the old ones in that very cell before the chapter runs. Papermill's own way, a
second cell after it, would stand on the page as a puzzle; and so the page shows what was executed.
"""

from __future__ import annotations

import ast
import copy
import math
from collections.abc import Mapping
from typing import Any

import yaml

from seglosses_nb.publish.book import PublishError

Notebook = dict[str, Any]


def parse(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """The values of `-p NAME VALUE`, each read as YAML: `3`, `0.5`, `false`, `[1, 2]`, `text`."""
    values: dict[str, Any] = {}
    for name, text in pairs:
        if not name.isidentifier():
            raise PublishError(
                f"-p {name} {text}: {name!r} is not a parameter's name; write e.g. -p seed 1"
            )
        try:
            value = yaml.safe_load(text)
            source_text(value)
        except (yaml.YAMLError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise PublishError(
                f"-p {name} {text}: the value cannot be used ({reason}); "
                "wanted a number, true, false, null, text, or a list or mapping of these in YAML"
            ) from error
        if name in values:
            raise PublishError(f"-p {name} is given twice; give it once")
        values[name] = value
    return values


def source_text(value: Any) -> str:
    """The Python expression for a value that YAML can give."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str):
        # double quotes, as the formatter of the chapters wants them
        text = repr(value)
        return text if '"' in value or "'" in value else f'"{text[1:-1]}"'
    if isinstance(value, list):
        return "[" + ", ".join(map(source_text, value)) + "]"
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{source_text(k)}: {source_text(v)}" for k, v in value.items()) + "}"
        )
    raise TypeError(f"{type(value).__name__} is no plain value")


def defaults(notebook: Notebook, chapter: str) -> dict[str, Any]:
    """Name and value of every parameter; of a value that is no literal, its source text."""
    found: dict[str, Any] = {}
    for statement in _assignments(_cell(notebook, chapter), chapter):
        try:
            found[_name(statement)] = ast.literal_eval(statement.value)
        except ValueError:
            found[_name(statement)] = ast.unparse(statement.value)
    return found


def changes(current: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the wanted values that the chapter has a parameter for, unless equal to its own."""
    return {
        name: value
        for name, value in sorted(wanted.items())
        if name in current and (type(current[name]), current[name]) != (type(value), value)
    }


def merge(notebook: Notebook, values: Mapping[str, Any], chapter: str) -> Notebook:
    """A copy of the notebook whose `parameters` cell assigns `values`; the rest stays as it is."""
    result = copy.deepcopy(notebook)
    if not values:
        return result
    cell = _cell(result, chapter)
    # ast counts columns in UTF-8 bytes
    lines = _text(cell).encode().split(b"\n")
    for statement in reversed(_assignments(cell, chapter)):
        name = _name(statement)
        if name not in values:
            continue
        first, last = statement.value.lineno - 1, (statement.value.end_lineno or 0) - 1
        head = lines[first][: statement.value.col_offset]
        tail = lines[last][statement.value.end_col_offset :]
        lines[first : last + 1] = [head + source_text(values[name]).encode() + tail]
    cell["source"] = b"\n".join(lines).decode()
    return result


def _cell(notebook: Notebook, chapter: str) -> dict[str, Any]:
    for cell in notebook["cells"]:
        tags = cell.get("metadata", {}).get("tags", [])
        if cell["cell_type"] == "code" and "parameters" in tags:
            return cell
    raise PublishError(
        f"{chapter} has no code cell tagged `parameters`; "
        "add one with `quick = True` and `seed = 0`"
    )


def _assignments(cell: dict[str, Any], chapter: str) -> list[ast.Assign | ast.AnnAssign]:
    try:
        body = ast.parse(_text(cell)).body
    except SyntaxError as error:
        raise PublishError(
            f"{chapter}: its parameters cell is not valid Python: {error}"
        ) from error
    found: list[ast.Assign | ast.AnnAssign] = []
    for statement in body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name()])
                | ast.AnnAssign(target=ast.Name(), value=ast.expr())
            ):
                found.append(statement)
    return found


def _name(statement: ast.Assign | ast.AnnAssign) -> str:
    target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
    assert isinstance(target, ast.Name)
    return target.id


def _text(cell: dict[str, Any]) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)
