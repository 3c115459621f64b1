"""What chapters show besides figures: source code from the package, and tables of agreement."""

from __future__ import annotations

import inspect
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

__all__ = ["Agreement", "agreement", "show_source", "table"]


def show_source(function: Callable[..., Any], *, signature: bool = False) -> Any:
    """Show a function's body from the installed package, without its docstring.

    What a chapter shows this way cannot differ from what it ran.

    Args:
        function: any Python function.
        signature: show the ``def`` line and its parameters too.
    """
    from IPython.display import Markdown

    source = textwrap.dedent(inspect.getsource(function))
    lines = source[source.index("def ") :].splitlines()
    documented = (function.__doc__ or "").splitlines()
    if documented:
        first = next(i for i, line in enumerate(lines) if line.lstrip().startswith(('"""', 'r"""')))
        head, body = lines[:first], lines[first + len(documented) :]
    else:
        first = next(i for i, line in enumerate(lines) if line.rstrip().endswith(":"))
        head, body = lines[: first + 1], lines[first + 1 :]
    shown = "\n".join(head + body) if signature else inspect.cleandoc("\n".join(["", *body]))
    return Markdown(f"```python\n{shown}\n```")


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], align: str = "") -> Any:
    """Show a Markdown table.

    Args:
        head: titles of the columns.
        rows: their cells; anything that prints.
        align: a letter per column, "l", "c" or "r"; default: the first left, the others right.
    """
    from IPython.display import Markdown

    rules = {"l": ":---", "c": ":---:", "r": "---:"}
    align = align or "l" + "r" * (len(head) - 1)
    lines = [head, [rules[letter] for letter in align], *rows]
    return Markdown("\n".join(f"| {' | '.join(map(str, line))} |" for line in lines))


@dataclass(frozen=True)
class Agreement:
    """One line of a table of agreement: what was compared, our value, theirs, and whose."""

    what: str
    ours: float
    theirs: float
    library: str

    @property
    def difference(self) -> float:
        """Our value minus theirs."""
        return self.ours - self.theirs


def agreement(rows: Iterable[tuple[str, Any, Any, str]], *, tolerance: float | None = 1e-6) -> Any:
    """Compare our values with those of other libraries, and show the table.

    Args:
        rows: (what is compared, our value, their value, distribution name of the library, e.g.
            "torch"). The version that ran is printed beside the name.
        tolerance: raise if a difference is larger, relative to the larger value or absolute,
            whichever is more lenient; ``None`` where a disagreement is the point.

    Raises:
        AssertionError: a difference is larger than ``tolerance``; the message names the row.
    """
    compared = [
        Agreement(what, float(ours), float(theirs), lib) for what, ours, theirs, lib in rows
    ]
    lines = []
    for row in compared:
        close = tolerance is None or math.isclose(
            row.ours, row.theirs, rel_tol=tolerance, abs_tol=tolerance
        )
        if not close:
            raise AssertionError(
                f"{row.what}: ours is {row.ours!r}, {row.library} gives {row.theirs!r}, "
                f"more than {tolerance:g} apart"
            )
        lines.append(
            (
                row.what,
                f"{row.ours:.7f}",
                f"{row.theirs:.7f}",
                f"{row.difference:+.1e}",
                f"{row.library} {version(row.library)}",
            )
        )
    return table(("compared", "ours", "theirs", "difference", "version"), lines, "lrrrl")
