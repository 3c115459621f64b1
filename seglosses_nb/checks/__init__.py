"""The battery: every promise of a loss as a check that runs on any loss, ours or yours.

``check_loss(my_loss)`` returns a :class:`Report` that prints as a table. A check is a function of a
:class:`Subject`, the loss and what is stated about it. Its docstring is the promise; it returns
nothing, or raises :class:`BrokenPromiseError` with the input, what was expected and what came, or
:class:`NotApplicableError` with the reason.

``form``, ``value``, ``gradient``, ``reduction``, ``order`` and ``machinery`` hold the checks,
``scenes`` the inputs.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from ..registry import LossInfo
from . import form, gradient, machinery, order, reduction, value
from .promise import BrokenPromiseError, NotApplicableError
from .report import Check, Report, Result, checks_of
from .scenes import DRAWINGS, PREDICTIONS, Scene, as_truth, as_values, drawing, predictions
from .subject import Subject

__all__ = [
    "CHECKS",
    "DRAWINGS",
    "PREDICTIONS",
    "BrokenPromiseError",
    "Check",
    "NotApplicableError",
    "Report",
    "Result",
    "Scene",
    "Subject",
    "as_truth",
    "as_values",
    "check_loss",
    "drawing",
    "predictions",
]

# Every check by its name, in the order in which they run and are reported.
CHECKS: dict[str, Check] = {
    check.name: check
    for module in (form, value, gradient, reduction, order, machinery)
    for check in checks_of(module)
}


def check_loss(
    loss: Callable[..., Tensor],
    *,
    family: str | None = None,
    facts: LossInfo | Mapping[str, Any] | None = None,
    oracle: Callable[..., Any] | None = None,
    only: str | Iterable[str] | None = None,
    skip: str | Iterable[str] = (),
    seed: int = 0,
    raise_on_failure: bool = False,
) -> Report:
    """Run the battery on a loss, anybody's, and report which promises it keeps.

    A registered loss is held to everything that the registry states. Any other callable is asked
    which targets it takes, and held to what its family and its parameters suggest; a failure then
    names the fact to state if the behaviour is meant. A check that needs a parameter which the loss
    lacks is skipped, with that reason.

    Args:
        loss: a function, a module or a module class of ``(logits, target)``, with logits
            (N, C, \\*space).
        family: "distribution", "region", "boundary", "compound" or "beyond".
        facts: what is true of the loss: some fields of a :class:`~.registry.LossInfo`, such as
            ``{"monotone": False}``, or a whole one, which holds the loss to the whole contract.
        oracle: a trusted implementation on NumPy arrays, with the same parameters.
        only: the checks to run, in place of all.
        skip: checks to leave out; ``"compile"`` takes longer than all others together.
        seed: of the random inputs.
        raise_on_failure: raise ``AssertionError`` with the report when a check fails.

    Raises:
        TypeError: the loss cannot be called with two tensors.
        ValueError: an unknown check, family or fact, or a loss that takes no kind of target.

    Example:
        >>> import torch
        >>> def careless_dice(logits, target):  # 0/0 where both masks are empty
        ...     p = logits.sigmoid()
        ...     return 1 - 2 * (p * target).sum() / (p + target).sum()
        >>> report = check_loss(careless_dice, only=["gradcheck", "extreme_logits"])
        >>> report.failed
        ('extreme_logits',)
        >>> report["extreme_logits"].summary
        "logits of 10000, right, mask 'empty', binary: expected a finite value, got nan"
    """
    checks = _chosen(only, skip)
    subject = Subject.of(loss, family=family, facts=facts, oracle=oracle, seed=seed)
    report = Report(subject.name, tuple(c.run(subject) for c in checks), tuple(subject.notes))
    if raise_on_failure and not report.passed:
        raise AssertionError(f"\n{report}")
    return report


def _chosen(only: str | Iterable[str] | None, skip: str | Iterable[str]) -> list[Check]:
    chosen = list(CHECKS) if only is None else _names("only", only)
    left_out = _names("skip", skip)
    names = [name for name in chosen if name not in left_out]
    if chosen and not names:
        raise ValueError("check_loss: skip leaves no check to run")
    return [CHECKS[name] for name in names]


def _names(argument: str, given: str | Iterable[str]) -> list[str]:
    names = [given] if isinstance(given, str) else list(given)
    for name in names:
        if name not in CHECKS:
            near = difflib.get_close_matches(str(name), CHECKS, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(CHECKS)}"
            raise ValueError(
                f"check_loss: {argument} names {name!r}, wanted names of checks; {hint}"
            )
    return names
