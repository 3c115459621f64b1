"""What a check raises, and the comparisons that raise it in words a stranger understands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


class BrokenPromiseError(AssertionError):
    """On this input something else was expected."""

    def __init__(self, on: object, expected: object, got: object, hint: str = "") -> None:
        self.on, self.expected, self.hint = str(on), str(expected), hint
        self.got = number(got) if isinstance(got, (float, Tensor)) else str(got)
        super().__init__(f"{self.on}: expected {self.expected}, got {self.got}")

    def explain(self, promise: str) -> str:
        """Return the whole story for somebody who sees this loss for the first time."""
        story = {"promised": promise, "input": self.on, "expected": self.expected, "got": self.got}
        if self.hint:
            story["hint"] = self.hint
        return "\n".join(f"{title:>8}: {text}" for title, text in story.items())


class NotApplicableError(Exception):
    """The check does not apply to this loss, for this reason."""


def require(condition: object, on: object, expected: object, got: object, hint: str = "") -> None:
    """Break the promise unless the condition holds."""
    if not bool(condition):
        raise BrokenPromiseError(on, expected, got, hint)


def agree(
    got: Tensor,
    wanted: Tensor,
    on: object,
    meaning: str,
    *,
    rtol: float = 1e-9,
    atol: float = 1e-11,
    hint: str = "",
) -> None:
    """Break the promise unless the two agree; ``meaning`` says what the wanted one is."""
    if got.shape != wanted.shape:
        expected = f"shape {tuple(wanted.shape)}: {meaning}"
        raise BrokenPromiseError(on, expected, f"shape {tuple(got.shape)}", hint)
    got, wanted = got.detach().double(), wanted.detach().double()
    excess = (got - wanted).abs() - (atol + rtol * wanted.abs())
    fine = (excess <= 0) | (got == wanted)  # written so that NaN is not fine
    if not fine.all():
        excess = torch.where(fine, -1.0, excess.nan_to_num(nan=math.inf))
        index = worst(excess)
        where = f" at index {index}" if index else ""
        raise BrokenPromiseError(
            on, f"{number(wanted[index])}{where}: {meaning}", number(got[index]), hint
        )


def worst(values: Tensor) -> tuple[int, ...]:
    """Return the index of the largest value."""
    return tuple(int(i) for i in np.unravel_index(int(values.argmax()), tuple(values.shape)))


def number(value: Any) -> str:
    """Show ten digits of a number, and the first of several."""
    if isinstance(value, Tensor):
        value = value.detach().flatten()[0]
    return f"{float(value):.10g}"


def given(parameters: Mapping[str, Any]) -> str:
    """Say with which parameters a loss was called."""
    if not parameters:
        return ""
    shown = (
        f"{n}=<{tuple(v.shape)}>" if isinstance(v, Tensor) and v.numel() > 4 else f"{n}={v!r}"
        for n, v in parameters.items()
    )
    return f", with {', '.join(shown)}"


def first_line(error: BaseException) -> str:
    """Return the kind of an error and the beginning of its message."""
    return f"{type(error).__name__}: {str(error).strip().split(chr(10))[0][:300]}"
