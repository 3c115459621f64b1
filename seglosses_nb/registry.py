"""One table of facts about every loss, and the base of the modules.

``@register(...)`` states facts beside the function. Each fact is a check in the battery
(:mod:`seglosses_nb.checks`), a cell of the comparison table and a line on the chapter's card; a
fact that no check can test does not go in.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Family = Literal["distribution", "region", "boundary", "compound", "beyond"]
Unit = Literal["pixel", "region", "image"]
Kind = Literal["binary", "multiclass", "multilabel", "soft"]

FAMILIES: tuple[Family, ...] = ("distribution", "region", "boundary", "compound", "beyond")


@dataclass(frozen=True)
class SpecialCase:
    """An identity: ``left`` and ``right`` take ``(logits, target)`` and agree.

    Attributes:
        statement: the identity in words, for the card and the family graph.
        kind: the kind of target on which it holds: "binary", "multiclass" or "multilabel".
        left: this loss with the parameters in question.
        right: what it equals.
        other: name of the other loss, if the identity leads to one.
    """

    statement: str
    kind: Kind
    left: Callable[[Tensor, Tensor], Tensor]
    right: Callable[[Tensor, Tensor], Tensor]
    other: str | None = None


@dataclass(frozen=True)
class LossInfo:
    """What is stated about a loss. Every attribute is checked or printed by something.

    Attributes:
        name: name of the function, the chapter and the test ids.
        function: the pure function.
        module: the :class:`SegLoss` that wraps it.
        family: which chapter part and module it lives in.
        unit: over what one unreduced value speaks: a pixel, a region (image and class), an image.
        summary: one sentence: what it is for.
        formula: LaTeX of the binary form, in the symbols of the notation page.
        cite: key of the source in ``book/references.bib``.
        equation: where in the source the formula stands.
        value_range: the bounds of one unreduced value.
        minimum: the value at the perfect prediction of a hard target.
        targets: kinds of target it takes.
        space_dims: numbers of space axes it takes; ``None`` for any.
        spatial: whether it looks at neighbours, so that the order of pixels matters.
        monotone: whether moving one pixel towards a hard truth never raises it.
        empty_target: whether false positives on an empty target cost something ("costs") or
            not ("free").
        blind_to: wrong predictions of the battery that it cannot see, with the reason.
        sides: parameter -> the error that a larger value makes dearer, "false positives" or
            "false negatives".
        double_backward: whether second derivatives work.
        compile: whether ``torch.compile(fullgraph=True)`` works.
        func: whether ``torch.func.grad`` and ``vmap`` work.
        stateful: whether the module learns parameters of its own.
        cost: how the work grows with the number of pixels n: "n", "n log n" or "n * steps".
        special_cases: identities, executed by the battery.
        deviations: where we deviate from the source, and why.
        aliases: library -> name of the same loss there; the tests look it up.
    """

    name: str
    function: Callable[..., Tensor]
    family: Family
    unit: Unit
    summary: str
    formula: str
    cite: str
    equation: str = ""
    value_range: tuple[float, float] = (0.0, float("inf"))
    minimum: float = 0.0
    targets: tuple[Kind, ...] = ("binary", "multiclass", "multilabel", "soft")
    space_dims: tuple[int, ...] | None = None
    spatial: bool = False
    monotone: bool = True
    empty_target: Literal["costs", "free"] = "costs"
    blind_to: Mapping[str, str] = field(default_factory=dict)
    sides: Mapping[str, str] = field(default_factory=dict)
    double_backward: bool = True
    compile: bool = True
    func: bool = True
    stateful: bool = False
    cost: Literal["n", "n log n", "n * steps"] = "n"
    special_cases: tuple[SpecialCase, ...] = ()
    deviations: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    module: type[SegLoss] | None = field(default=None, repr=False)

    @property
    def chapter(self) -> str:
        """Path of the chapter in the book, without its ending."""
        return f"{self.family}/{self.name}"

    @property
    def parameters(self) -> dict[str, Any]:
        """The keyword-only parameters and their defaults."""
        return _keyword_parameters(self.function)


LOSSES: dict[str, LossInfo] = {}
F = TypeVar("F", bound=Callable[..., Tensor])


def register(**facts: Any) -> Callable[[F], F]:
    """State the facts about a loss function and enter it into :data:`LOSSES`."""

    def enter(function: F) -> F:
        name = function.__name__
        if name in LOSSES and LOSSES[name].function.__module__ != function.__module__:
            raise ValueError(f"register: {name} is already registered, names must be unique")
        LOSSES[name] = LossInfo(name=name, function=function, **facts)
        return function

    return enter


def get_loss(name: str, **parameters: Any) -> SegLoss:
    """Build a loss module by name: ``get_loss("dice_loss", squared=True)``.

    The module's name (``"DiceLoss"``) and the name without its ``_loss`` (``"dice"``) work too.

    Raises:
        ValueError: no loss has this name; the error lists the nearest ones.
        TypeError: the loss has no such parameter.
    """
    names = {n: info for info in LOSSES.values() for n in _names(info)}
    if name not in names:
        near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(LOSSES)}"
        raise ValueError(f"get_loss: name is {name!r}, wanted the name of a loss; {hint}")
    module = names[name].module
    if module is None:
        raise ValueError(f"get_loss: {name} has no module; define one with SegLoss")
    return module(**parameters)


def _names(info: LossInfo) -> list[str]:
    module = [info.module.__name__] if info.module else []
    return [info.name, info.name.removesuffix("_loss"), *module]


def _keyword_parameters(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


class SegLoss(nn.Module):
    """Base of the loss modules: ``class DiceLoss(SegLoss, fn=dice_loss): ...``.

    The keyword-only parameters of the function become those of the class. Tensors are kept as
    buffers, so that they follow ``.to(device)``; everything else as attributes. Any parameter can
    also be given for one call: ``loss(logits, target, pixel_weight=w)``.
    """

    fn: Callable[..., Tensor]

    def __init_subclass__(cls, *, fn: Callable[..., Tensor] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if fn is None:  # a subclass by hand of a class that has one
            return
        cls.fn = staticmethod(fn)
        keywords = [
            p for p in inspect.signature(fn).parameters.values() if p.kind is p.KEYWORD_ONLY
        ]
        cls.__signature__ = inspect.Signature(keywords)
        cls.__doc__ = cls.__doc__ or (
            f"Module form of :func:`{fn.__name__}`, with the same parameters.\n\n"
            + inspect.cleandoc(fn.__doc__ or "")
        )
        if fn.__name__ in LOSSES and LOSSES[fn.__name__].function is fn:
            LOSSES[fn.__name__] = replace(LOSSES[fn.__name__], module=cls)

    def __init__(self, *positional: Any, **parameters: Any) -> None:
        super().__init__()
        if positional:
            raise TypeError(
                f"{type(self).__name__}: got {positional[0]!r} without a name; wanted keywords, "
                f"e.g. {type(self).__name__}(reduction='sum')"
            )
        defaults = _keyword_parameters(self.fn)
        for name in parameters:
            if name not in defaults:
                near = difflib.get_close_matches(name, defaults, n=1)
                hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(defaults)}"
                if name in ("weight", "pos_weight", "class_weight"):
                    hint = "weigh the classes in the call: "
                    hint += "pixel_weight=seglosses_nb.pixel_weights(target, weights)"
                    if "class_weight" in defaults:
                        hint = "did you mean class_weight?"
                raise TypeError(f"{type(self).__name__}: there is no parameter {name!r}; {hint}")
        for name, value in (defaults | parameters).items():
            if isinstance(value, np.ndarray):  # scikit-learn's weights come as arrays
                value = torch.tensor(value)
            if isinstance(value, Tensor):
                # Configuration, not state: a checkpoint neither holds nor overwrites it.
                self.register_buffer(name, value, persistent=False)
            else:
                setattr(self, name, value)
        self._names = tuple(defaults)

    def forward(self, logits: Tensor, target: Tensor, **changes: Any) -> Tensor:
        """Compute the loss; ``changes`` override the module's parameters for this call."""
        return self.fn(logits, target, **{n: getattr(self, n) for n in self._names} | changes)

    def extra_repr(self) -> str:
        """Show the parameters that differ from their defaults."""
        shown = []
        for name, default in _keyword_parameters(self.fn).items():
            value = getattr(self, name)
            if isinstance(value, Tensor):
                shown.append(f"{name}={value.tolist()}")
            elif value is not default and value != default:
                shown.append(f"{name}={value!r}")
        return ", ".join(shown)
