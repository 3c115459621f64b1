"""The loss under test: how to call it, what is stated about it, and inputs that suit it."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..registry import FAMILIES, LOSSES, LossInfo, SegLoss
from .promise import BrokenPromiseError, NotApplicableError, first_line, given
from .scenes import (
    CLASSES,
    DRAWINGS,
    IGNORED,
    SIZE,
    Scene,
    as_truth,
    as_values,
    blobs,
    drawing,
    predictions,
    spread,
    wrong_everywhere,
)

# The parameters that the contract gives to all losses, and those of the losses of regions.
SHARED = {"multilabel": False, "ignore_index": None, "pixel_weight": None, "reduction": "mean"}
REGIONAL = {
    "aggregate": "image",
    "include_background": True,
    "class_weight": None,
    "absent": "smooth",
    "process_group": None,
}

# The forms of a target, as a report names them.
FORMS = {
    "labels": "integer labels (N, *space)",
    "values": "floating values of the logits' shape",
    "float labels": "floating labels (N, *space)",
    "channel labels": "integer labels (N, 1, *space)",
}


@dataclass
class Subject:
    """A loss, what is stated about it, and how to call it.

    Attributes:
        name: for messages.
        call: ``(logits, target, **parameters) -> Tensor``.
        parameters: what it takes beyond the two tensors, with the defaults.
        function: the callable whose signature and docstring are the loss's.
        module: its module class, if there is one.
        instance: the module, if one was given.
        fixed: parameters that the caller has set already, in a module or a partial.
        facts: what it is held to.
        stated: the facts that somebody stated; the others were assumed.
        strict: whether all facts were stated, so that it is held to the whole contract.
        oracle: a trusted implementation on NumPy arrays.
        seed: of the random inputs.
        kinds: the kinds of target that it takes, and in which form: see :data:`FORMS`.
        dtype: in which it is tested: float64, unless it refuses.
        notes: what was found out about it beforehand.
    """

    name: str
    call: Callable[..., Tensor]
    parameters: dict[str, Any]
    function: Callable[..., Any]
    module: type | None = None
    instance: nn.Module | None = None
    fixed: dict[str, Any] = field(default_factory=dict)
    facts: LossInfo = None  # type: ignore[assignment]
    stated: frozenset[str] = frozenset()
    strict: bool = False
    oracle: Callable[..., Any] | None = None
    seed: int = 0
    kinds: dict[str, str] = field(default_factory=dict)
    dtype: torch.dtype = torch.float64
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        loss: Callable[..., Tensor],
        *,
        family: str | None = None,
        facts: LossInfo | Mapping[str, Any] | None = None,
        oracle: Callable[..., Any] | None = None,
        seed: int = 0,
    ) -> Subject:
        """Look at a loss and find out how to call it and what to hold it to."""
        if not callable(loss):
            raise TypeError(
                f"check_loss: loss is a {type(loss).__name__}, wanted a function, a module or a "
                "module class of (logits, target); get_loss turns a name into a module"
            )
        if family is not None and family not in FAMILIES:
            wanted = ", ".join(map(repr, FAMILIES))
            raise ValueError(f"check_loss: family is {family!r}, wanted one of {wanted}")
        subject = cls(*_adapt(loss))
        info = facts if isinstance(facts, LossInfo) else _registered(loss)
        changes = {} if isinstance(facts, LossInfo) else dict(facts or {})
        if family is not None:
            changes["family"] = family
        known = {f.name for f in dataclasses.fields(LossInfo)}
        for name in changes:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
                raise ValueError(f"check_loss: facts name {name!r}, which is no fact; {hint}")
        subject.strict = info is not None
        subject.stated = frozenset(known if info is not None else changes)
        info = info or _assumed(subject, changes.get("family"))
        subject.facts = dataclasses.replace(info, **changes) if changes else info
        subject.name = subject.facts.name
        subject.module = subject.module or subject.facts.module
        subject.oracle, subject.seed = oracle, seed
        if not subject.stated:
            family = subject.facts.family
            subject.notes.append(f"nobody stated facts, so it is held to those of a {family} loss")
        if subject.strict:
            kinds = ("binary", "multiclass", "multilabel")
            subject.kinds = {kind: "labels" for kind in kinds if kind in subject.facts.targets}
        else:
            _explore(subject)
        return subject

    # ------------------------------------------------------------------------------ what it is

    def has(self, *names: str) -> bool:
        """Whether the loss has all these parameters."""
        return all(name in self.parameters for name in names)

    def need(self, *names: str) -> None:
        """Skip the check unless the loss has these parameters."""
        missing = [name for name in names if name not in self.parameters]
        if missing:
            raise NotApplicableError(f"it has no parameter {' or '.join(missing)}")

    def hint(self, fact: str, value: object) -> str:
        """Say who stated the fact, or how to state another one if the behaviour is meant."""
        if fact in self.stated:
            return f"stated is {fact}={getattr(self.facts, fact)!r}"
        return f"nobody stated it; if it is meant, pass facts={{{fact!r}: {value!r}}}"

    @property
    def soft_kinds(self) -> list[str]:
        """The kinds of target that it takes as soft values."""
        if "targets" in self.stated:
            return list(self.kinds) if "soft" in self.facts.targets else []
        return [kind for kind, form in self.kinds.items() if form == "values"]

    @property
    def own(self) -> dict[str, Any]:
        """The parameters that are its own, and their defaults."""
        return {n: d for n, d in self.parameters.items() if n not in SHARED | REGIONAL}

    @property
    def dims(self) -> int:
        """How many space axes its scenes have: 2 where it takes that."""
        dims = self.facts.space_dims
        return 2 if dims is None or 2 in dims else min(dims)

    @property
    def exact(self) -> dict[str, float]:
        """How nearly two ways to one number agree in the precision under test."""
        double = self.dtype == torch.float64
        return {"rtol": 1e-9, "atol": 1e-11} if double else {"rtol": 1e-4, "atol": 1e-5}

    @property
    def slack(self) -> float:
        """By how much rounding may cross a bound."""
        return 1e-11 if self.dtype == torch.float64 else 1e-5

    def can_ignore(self, kind: str) -> bool:
        """Whether pixels can be ignored by their label."""
        return self.has("ignore_index") and self.kinds[kind] in ("labels", "channel labels")

    def changes(self) -> list[dict[str, Any]]:
        """Return one of its own parameters at a time, with another value than its default."""
        found: list[dict[str, Any]] = []
        for name, default in self.own.items():
            if isinstance(default, bool):
                found.append({name: not default})
            elif isinstance(default, float):
                found.append({name: default / 2 if default else 0.5})
            elif isinstance(default, int):
                found.append({name: default + 1})
        return found

    def settings(self) -> list[dict[str, Any]]:
        """Ways to call it: as it is, over the batch, and with one of its own parameters changed.

        Only where all facts are stated are parameters changed: a stranger's may mean anything.
        """
        found: list[dict[str, Any]] = [{}]
        if self.has("aggregate"):
            found.append({"aggregate": "batch"})
        if self.strict:
            found += self.changes()
            found += [{"smooth": 0.0}] if self.has("smooth") else []
        return found

    # --------------------------------------------------------------------------------- calling

    def value(self, scene: Scene, **parameters: Any) -> Tensor:
        """Call the loss; an exception becomes a broken promise that names the input."""
        try:
            return self.call(scene.logits, scene.target, **scene.keywords | parameters)
        except Exception as error:
            on = f"{scene}{given(parameters)}"
            raise BrokenPromiseError(on, "a value", first_line(error)) from error

    def gradient(self, scene: Scene, **parameters: Any) -> Tensor:
        """Return the gradient of the summed loss with respect to the logits."""
        return self.value_and_gradient(scene, **parameters)[1]

    def value_and_gradient(
        self, scene: Scene, *, scale: float = 1.0, **parameters: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the loss, and ``scale`` times the gradient of its sum."""
        logits = scene.logits.detach().clone().requires_grad_()
        value = self.value(scene.change(logits=logits), **parameters)
        if not value.requires_grad:
            raise BrokenPromiseError(
                f"{scene}{given(parameters)}",
                "a loss from which a gradient flows back to the logits",
                "a value that is cut off (detach, argmax, rounding, .item() or NumPy?)",
            )
        start = torch.full_like(value, scale)
        (gradient,) = torch.autograd.grad(value, logits, start, allow_unused=True)
        return value.detach(), torch.zeros_like(logits) if gradient is None else gradient

    # ---------------------------------------------------------------------------------- inputs

    def generator(self, salt: int = 0) -> torch.Generator:
        """Return random numbers that depend on the seed alone."""
        return torch.Generator().manual_seed(1000 * self.seed + salt)

    def keywords(self, kind: str) -> dict[str, Any]:
        """Return the parameters that this kind of target needs."""
        return {"multilabel": True} if kind == "multilabel" and self.has("multilabel") else {}

    def target(self, truth: Tensor, kind: str) -> Tensor:
        """Bring labels or masks into the form that the loss takes."""
        form = self.kinds[kind]
        if form == "values":
            return as_values(truth, kind).to(self.dtype)
        truth = truth.unsqueeze(1) if form == "channel labels" else truth
        return truth.to(self.dtype) if form == "float labels" else truth

    def build(
        self, kind: str, truth: Tensor, name: str, logits: Tensor | None = None, salt: int = 0
    ) -> Scene:
        """Build a scene from a truth, under random logits unless some are given."""
        if logits is None:
            space = truth.shape[2:] if kind == "multilabel" else truth.shape[1:]
            shape = (len(truth), 1 if kind == "binary" else CLASSES, *space)
            logits = 2 * torch.randn(shape, generator=self.generator(salt), dtype=torch.float64)
            logits = logits.to(self.dtype)
        return Scene(name, kind, logits, truth, self.target(truth, kind), self.keywords(kind))

    def scene(self, kind: str, mask: str) -> Scene:
        """Two images, a drawing and its transpose, under random logits."""
        truth = as_truth(spread(self._pair(mask), self.dims), kind)
        scene = self.build(kind, truth, f"mask {mask!r}")
        if mask == "ignored_strip":
            scene.keywords["ignore_index"] = IGNORED
        return scene

    @staticmethod
    def _pair(mask: str) -> Tensor:
        return torch.stack([drawing(mask), drawing(mask).T])

    def scenes(self, masks: Iterable[str] = tuple(DRAWINGS), kind: str = "") -> Iterator[Scene]:
        """Yield drawings in every kind of target, ignored pixels only where that can be told."""
        for each in [kind] if kind else self.kinds:
            for mask in masks:
                if mask != "ignored_strip" or self.can_ignore(each):
                    yield self.scene(each, mask)

    def random(
        self, kind: str, *, count: int = 2, space: Sequence[int] | None = None, salt: int = 0
    ) -> Scene:
        """Random blobs under random logits."""
        if space is None:
            space = {1: (24,), 2: (SIZE, SIZE), 3: (4, SIZE, SIZE)}.get(self.dims, (4,) * self.dims)
        truth = blobs(kind, count, space, self.generator(salt + 77))
        return self.build(kind, truth, "random blobs", salt=salt)

    def softened(self, kind: str, space: Sequence[int] | None = None) -> Scene:
        """Random soft values under random logits."""
        scene = self.random(kind, space=space)
        noise = torch.randn(scene.logits.shape, generator=self.generator(5), dtype=torch.float64)
        soft = noise.softmax(1) if kind == "multiclass" else noise.sigmoid()
        return scene.change(target=soft.to(self.dtype), name="soft values")

    def predicted(self, kind: str, mask: str, scale: float) -> Iterator[tuple[str, Scene, Tensor]]:
        """Yield the named predictions of a drawing: name, scene, and where it is wrong.

        The perfect one comes first, with the same confidence as the others.
        """
        base = self.scene(kind, mask)
        guesses = {
            name: as_truth(spread(guess, self.dims), kind)
            for name, guess in predictions(self._pair(mask)).items()
        }
        guesses["inverted"] = wrong_everywhere(base.truth, kind)
        for name, guess in guesses.items():
            values = as_values(guess, kind).to(self.dtype)
            scene = base.predict(scale * (2 * values - 1), f"prediction {name!r} of {base.name}")
            yield name, scene, values != base.values
        flat = base.predict(0 * values, f"prediction 'uniform' of {base.name}")
        yield "uniform", flat, torch.ones_like(values, dtype=torch.bool)

    def pixel_weight(self, scene: Scene) -> Tensor:
        """Return weights 0, 1, 2 and 3 for the pixels of a scene."""
        shape = (len(scene.logits), *scene.space)
        weight = torch.randint(0, 4, shape, generator=self.generator())
        return weight.to(scene.logits.dtype)


# ---------------------------------------------------------------------------- how it can be called


def _adapt(loss: Any) -> tuple[Any, ...]:
    """Return name, call, parameters, function, module, instance and fixed parameters."""
    name = getattr(loss, "__name__", type(loss).__name__)
    if isinstance(loss, type):
        if issubclass(loss, SegLoss) and hasattr(loss, "fn"):
            return name, loss.fn, _parameters(loss.fn), loss.fn, loss, None, {}
        return _adapt_class(name, loss)
    if isinstance(loss, SegLoss) and hasattr(loss, "fn"):
        defaults = _parameters(loss.fn)
        fixed = {n: getattr(loss, n) for n, d in defaults.items() if getattr(loss, n) is not d}
        return name, loss, defaults | fixed, loss.fn, type(loss), loss, fixed
    if isinstance(loss, functools.partial):
        name, _, parameters, function, module, _, fixed = _adapt(loss.func)
        fixed = fixed | loss.keywords
        return name, loss, parameters | fixed, function, module, None, fixed
    module = isinstance(loss, nn.Module)
    function = loss.forward if module else loss
    return name, loss, _parameters(function), function, None, loss if module else None, {}


def _adapt_class(name: str, loss: type) -> tuple[Any, ...]:
    """Take a class whose parameters are given when it is built, or when it is called."""
    try:
        built = loss()
    except TypeError as error:
        raise TypeError(
            f"check_loss: {name} cannot be built without arguments ({error}); pass an instance"
        ) from error
    forward = built.forward if isinstance(built, nn.Module) else built
    when_called = _parameters(forward)

    def call(logits: Tensor, target: Tensor, **keywords: Any) -> Tensor:
        first = {n: v for n, v in keywords.items() if n not in when_called}
        later = {n: v for n, v in keywords.items() if n in when_called}
        return (loss(**first) if first else built)(logits, target, **later)

    return name, call, _parameters(loss, tensors=0) | when_called, forward, loss, None, {}


def _parameters(function: Callable[..., Any], tensors: int = 2) -> dict[str, Any]:
    """Return the named parameters after the tensors, with their defaults."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # written in C
        return {}
    ordered = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(ordered) < tensors and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise TypeError(
            f"check_loss: loss takes {len(ordered)} positional arguments, wanted two: "
            "(logits, target)"
        )
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return {p.name: p.default for p in named if p not in ordered[:tensors]}


def _registered(loss: Any) -> LossInfo | None:
    while isinstance(loss, functools.partial):
        loss = loss.func
    for info in LOSSES.values():
        modules = () if info.module is None else (info.module,)
        if loss is info.function or loss in modules or type(loss) in modules:
            return info
    return None


def _assumed(subject: Subject, family: str | None) -> LossInfo:
    """Return what a stranger's loss is held to until somebody states otherwise."""
    if family is None:
        family = "region" if subject.has("aggregate") else "distribution"
    unit = {"distribution": "pixel", "region": "region"}.get(family, "image")
    return LossInfo(
        name=subject.name,
        function=subject.function,
        family=family,  # type: ignore[arg-type]
        unit=unit,  # type: ignore[arg-type]
        summary="",
        formula="",
        cite="",
        spatial=family == "boundary",
    )


# ----------------------------------------------------------- which targets a stranger's loss takes


def _explore(subject: Subject) -> None:
    """Find out which kinds of target the loss takes, in which form and precision."""
    refused: dict[str, str] = {}
    asked = ("binary", "multiclass", "multilabel")
    if "targets" in subject.stated:
        asked = tuple(kind for kind in asked if kind in subject.facts.targets)
    for subject.dtype in (torch.float64, torch.float32):
        found = {kind: _find_form(subject, kind) for kind in asked}
        subject.kinds = {kind: form for kind, (form, _) in found.items() if form}
        refused = {kind: reason for kind, (form, reason) in found.items() if not form}
        if subject.kinds and _sees(subject, 1e-10):
            break
    reasons = [f"takes no {kind} targets: {reason}" for kind, reason in refused.items()]
    if not subject.kinds:
        raise ValueError(f"check_loss: {subject.name} {'; '.join(reasons)}")
    found_out = "targets" not in subject.stated  # what is stated is tested, not corrected
    if found_out and "multilabel" in subject.kinds and not subject.has("multilabel"):
        # The same call cannot mean exclusive and independent channels: is there a softmax?
        scene = subject.scene("multilabel", "ring")
        target = as_values(subject.scene("multiclass", "ring").truth, "multiclass")
        scene = scene.change(target=target.to(subject.dtype))
        same = torch.isclose(subject.value(scene), subject.value(scene.predict(scene.logits + 1)))
        if same.all():
            subject.kinds.pop("multilabel")
        elif subject.kinds.get("multiclass") == "values":
            subject.kinds.pop("multiclass")
    if found_out:
        soft = ("soft",) if subject.soft_kinds else ()
        subject.facts = dataclasses.replace(subject.facts, targets=(*subject.kinds, *soft))
    taken = [f"takes {kind} targets as {FORMS[form]}" for kind, form in subject.kinds.items()]
    subject.notes += [*taken, *reasons]
    if subject.dtype == torch.float32:
        subject.notes.append("does not compute in float64, so it is tested less exactly")


def _sees(subject: Subject, change: float) -> bool:
    """Whether a relative change of the logits, lost in single precision, changes the value."""
    scene = subject.random(next(iter(subject.kinds)))
    changed = scene.predict(scene.logits * (1 + change))
    return not torch.equal(subject.value(scene), subject.value(changed))


def _find_form(subject: Subject, kind: str) -> tuple[str, str]:
    """Return the form in which it takes this kind of target, or "" and why it does not."""
    forms = tuple(FORMS)
    if kind == "multilabel" and not subject.has("multilabel"):
        forms = ("values",)
    reason = ""
    for form in forms:
        subject.kinds = {kind: form}
        scene = subject.scene(kind, "border")  # two images that are not alike
        right, wrong = (
            scene.predict(4 * (2 * as_values(truth, kind).to(subject.dtype) - 1))
            for truth in (scene.truth, wrong_everywhere(scene.truth, kind))
        )
        swapped = right.change(target=right.target.flip(0))
        try:
            values = [float(subject.value(case).mean()) for case in (right, wrong, swapped)]
        except Exception as error:
            got = error.got if isinstance(error, BrokenPromiseError) else first_line(error)
            reason = reason or f"with {form} it raises {got}"
            continue
        if not all(map(math.isfinite, values)) or values[0] == values[1]:
            got = "{:g} for a perfect and {:g} for an inverted prediction".format(*values)
            reason = reason or f"with {form} it gives {got}"
        elif math.isclose(values[0], values[2]):
            reason = reason or f"{form} are broadcast, so that images share their targets"
        else:
            return form, ""
    return "", reason
