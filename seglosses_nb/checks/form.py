"""Promises about form: what goes in, what comes out, what is refused, what the docstring says."""

from __future__ import annotations

import copy
import doctest
import functools
import inspect
import io
import math
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..registry import SegLoss
from .promise import (
    BrokenPromiseError,
    NotApplicableError,
    agree,
    first_line,
    given,
    number,
    require,
)
from .scenes import CLASSES, IGNORED, SIZE, Scene, as_truth, as_values, drawing
from .subject import REGIONAL, SHARED, Subject


def check_signature(subject: Subject) -> None:
    """Two tensors in, the rest by keyword with defaults that work, one number out."""
    if subject.strict:
        _check_contract(subject)
    missing = [n for n, d in subject.parameters.items() if d is inspect.Parameter.empty]
    require(not missing, "the signature", "a default for every parameter", f"none for {missing}")
    for kind in subject.kinds:
        scene = subject.random(kind)
        value = subject.value(scene.change(logits=scene.logits.requires_grad_()))
        require(isinstance(value, Tensor), scene, "a tensor", type(value).__name__)
        require(value.ndim == 0, scene, "one number", f"shape {tuple(value.shape)}")
        require(value.is_floating_point(), scene, "a floating number", value.dtype)
        require(value.requires_grad, scene, "a value with a gradient", "one cut off from logits")


def _check_contract(subject: Subject) -> None:
    """The parameters that all losses share are there, with the same defaults."""
    parameters = list(inspect.signature(subject.function).parameters.values())
    shown = f"({', '.join(map(str, parameters))})"
    tensors = [p.name for p in parameters[:2]] == ["logits", "target"]
    by_keyword = all(p.kind is p.KEYWORD_ONLY for p in parameters[2:])
    wanted = "(logits, target, *, everything else by keyword)"
    require(tensors and by_keyword, "the signature", wanted, shown)
    defaults = {p.name: p.default for p in parameters[2:]}
    shared = SHARED | (REGIONAL if subject.facts.family == "region" else {})
    for name, default in shared.items():
        require(name in defaults, "the signature", f"a parameter {name}", shown)
        expected = f"default {default!r}"
        require(defaults[name] == default, f"the parameter {name}", expected, repr(defaults[name]))


def check_module(subject: Subject) -> None:
    """The module equals the function and survives pickle, deepcopy and .to()."""
    cls, module = subject.module, subject.instance
    if cls is None and module is None:
        require(not subject.strict, "the facts", "a module for the loss", "none")
        raise NotApplicableError("it is a function without a module")
    module = module if module is not None else cls(**subject.fixed)
    scene = subject.random(next(iter(subject.kinds)))
    wanted = subject.call(scene.logits, scene.target, **subject.fixed | scene.keywords)
    ways: dict[str, Callable[[], Any]] = {
        "the module": lambda: module,
        "the module, pickled and unpickled": lambda: pickle.loads(pickle.dumps(module)),
        "a deep copy of the module": lambda: copy.deepcopy(module),
    }
    for way, make in ways.items():
        try:
            got = make()(scene.logits, scene.target, **scene.keywords)
        except Exception as error:
            raise BrokenPromiseError(f"{way}, {scene}", "a value", first_line(error)) from error
        agree(got, wanted, f"{way}, {scene}", "what the function gives", **subject.exact)
    if subject.strict:
        learnt = sum(1 for _ in module.parameters())
        stateful = subject.facts.stateful
        expected = "parameters that it learns" if stateful else "no parameters that it learns"
        require((learnt > 0) == stateful, "the module", expected, learnt, f"{stateful=}")
    if isinstance(cls, type) and issubclass(cls, SegLoss):
        _check_house_module(subject, cls)


def _check_house_module(subject: Subject, cls: type) -> None:
    """A module of the house has the function's parameters, shows them, and refuses others."""
    wanted, name = list(subject.parameters), cls.__name__
    defaults = inspect.signature(subject.function).parameters
    got = list(inspect.signature(cls).parameters)
    require(got == wanted, f"the signature of {name}", f"the function's, {wanted}", got)
    for kind in subject.kinds:
        scene = subject.random(kind)
        for parameters in subject.settings():
            module = cls(**subject.fixed | parameters)
            value = module(scene.logits, scene.target, **scene.keywords)
            keywords = subject.fixed | scene.keywords | parameters
            expected = subject.call(scene.logits, scene.target, **keywords)
            on = f"{name}(){given(parameters)}, {scene}"
            agree(value, expected, on, "what the function gives", **subject.exact)
            for key, setting in parameters.items():
                shown = f"{key}={setting!r}"
                visible = shown in repr(module) or setting == defaults[key].default
                require(visible, f"repr of {on}", shown, repr(module))
            value = cls(**subject.fixed)(scene.logits, scene.target, **scene.keywords, **parameters)
            on = f"{name}() called{given(parameters)}, {scene}"
            agree(value, expected, on, "what the function gives", **subject.exact)
    if subject.has("class_weight"):
        weight = torch.ones(CLASSES, dtype=torch.float32)
        module = cls(**subject.fixed | {"class_weight": weight}).to(torch.float64)
        dtype = module.class_weight.dtype
        on = f"{name}(class_weight=<tensor>).to(torch.float64)"
        require(dtype == torch.float64, on, "a buffer that follows", dtype)
    on, expected = f"{name}(no_such_parameter=1)", "a TypeError that names class and parameter"
    try:
        cls(no_such_parameter=1)
    except TypeError as error:
        text = str(error)
        require(name in text and "no_such_parameter" in text, on, expected, text)
    else:
        raise BrokenPromiseError(on, expected, "a module")


def check_docstring(subject: Subject) -> None:
    """The docstring has its sections, names every parameter, and its example runs."""
    text = inspect.getdoc(subject.function) or ""
    if subject.strict:
        sections = ["Shape", "Args", "Returns", "Edge cases", "Raises", "Example", "Cite"]
        sections += ["Special cases"] * bool(subject.facts.special_cases)
        sections += ["Differs from"] * bool(subject.facts.deviations)
        for section in sections:
            found = re.search(rf"^{section}:$", text, re.MULTILINE)
            require(found, "the docstring", f"a section '{section}:'", "none")
        for name in ("logits", "target", *subject.parameters):
            found = re.search(rf"^ +(\w+, )*{name}(, \w+)*:", text, re.MULTILINE)
            require(found, "the docstring, Args", f"an entry '{name}:'", "none")
        require(".. math::" in text, "the docstring", "the formula, '.. math::'", "none")
    scope = {"torch": torch, "nn": torch.nn, "F": torch.nn.functional}
    scope |= getattr(subject.function, "__globals__", {})
    example = doctest.DocTestParser().get_doctest(text, scope, subject.name, None, None)
    if not example.examples:
        require(not subject.strict, "the docstring", "an example with '>>>'", "none")
        raise NotApplicableError("its docstring has no example to run")
    out = io.StringIO()
    outcome = doctest.DocTestRunner(verbose=False).run(example, out=out.write)
    require(outcome.failed == 0, "the example", "what the docstring says", out.getvalue())


def check_targets(subject: Subject) -> None:
    """Every declared kind of target is taken in any dtype; the others are refused."""
    for kind, form in subject.kinds.items():
        scene = subject.random(kind)
        wanted = subject.value(scene)
        for name, target in _other_forms(subject, scene).items():
            try:
                got = subject.value(scene.change(target=target, name=name))
            except BrokenPromiseError:
                if subject.strict:
                    raise
                continue  # a stranger's may refuse what it does not misread
            agree(got, wanted, f"{name}, {kind}", f"what the same truth as {form} gives")
    if subject.strict:
        for kind in ("binary", "multiclass", "multilabel", "soft"):
            if kind not in subject.facts.targets:
                _check_undeclared(subject, kind)


def _other_forms(subject: Subject, scene: Scene) -> dict[str, Tensor]:
    """Return the same truth in other dtypes."""
    form = subject.kinds[scene.kind]
    forms: dict[str, Tensor] = {}
    if form == "labels":
        dtypes = [torch.uint8, torch.int16, torch.int32] if subject.strict else [torch.uint8]
        forms = {
            f"{dtype} labels".removeprefix("torch."): scene.truth.to(dtype) for dtype in dtypes
        }
        if subject.strict and scene.kind != "multiclass":
            forms["bool masks"] = scene.truth.bool()
        if subject.strict and scene.kind == "binary":
            forms["labels with a channel axis"] = scene.truth.unsqueeze(1)
    if scene.kind in subject.soft_kinds:
        forms["values 0.0 and 1.0"] = as_values(scene.truth, scene.kind).to(subject.dtype)
    return forms


def _check_undeclared(subject: Subject, kind: str) -> None:
    """A kind of target that is not declared is refused, not misread."""
    keywords: dict[str, Any] = {"multilabel": True} if kind == "multilabel" else {}
    if kind == "soft":
        base = next(iter(subject.kinds))
        scene = subject.softened(base)
        keywords = scene.keywords
    else:
        truth = as_truth(torch.stack([drawing("ring")] * 2), kind)
        logits = torch.zeros(2, 1 if kind == "binary" else CLASSES, SIZE, SIZE)
        scene = Scene("mask 'ring'", kind, logits, truth, truth)
    on, expected = f"a {kind} target, which is not declared", "an error that names the loss"
    try:
        got = subject.call(scene.logits, scene.target, **keywords)
    except (TypeError, ValueError) as error:
        require(subject.name in str(error), on, expected, str(error))
    else:
        raise BrokenPromiseError(on, expected, f"{number(got)}, silently")


def check_multilabel(subject: Subject) -> None:
    """With multilabel every channel is a yes-or-no question of its own."""
    if "multilabel" not in subject.kinds:
        raise NotApplicableError("it takes no multilabel targets")
    scene = subject.random("multilabel")
    each = {"reduction": "none"} if subject.has("reduction") else {}
    value = subject.value(scene, **each)
    shifted = subject.value(scene.predict(scene.logits + 1), **each)
    require(
        not torch.allclose(value, shifted),
        f"{scene}, 1 added to the logits of all channels",
        "another value, because every channel has its own sigmoid",
        "the same value, as if the channels excluded each other (softmax)",
    )
    if "binary" not in subject.kinds or not each or subject.facts.unit not in ("pixel", "region"):
        return
    for channel in range(CLASSES):
        logits = scene.logits[:, [channel]]
        alone = subject.build("binary", scene.truth[:, channel], "", logits)
        wanted = subject.value(alone, **each).reshape(value[:, [channel]].shape)
        on = f"{scene}, channel {channel}, unreduced"
        agree(value[:, [channel]], wanted, on, "the channel alone, as a binary target")


# -------------------------------------------------------------------------------- what is refused


def refused(
    subject: Subject,
    call: Callable[..., Any],
    keywords: Mapping[str, Any],
    on: str,
    pattern: str,
) -> None:
    """Break the promise unless it raises, and where all facts are stated, with a good message."""
    try:
        got = call(**keywords)
    except Exception as error:
        if not subject.strict:
            return
        text = str(error)
        kind = isinstance(error, (TypeError, ValueError))
        require(kind, on, "a TypeError or ValueError", first_line(error))
        require(text.startswith(f"{subject.name}: "), on, f"'{subject.name}: ...'", text)
        expected = f"a message that says what came and what is wanted: {pattern}"
        require(re.search(pattern, text, re.DOTALL), on, expected, text)
    else:
        shown = number(got) if isinstance(got, Tensor) and got.numel() else "a value"
        raise BrokenPromiseError(on, "an error", f"{shown}, silently")


def check_bad_inputs(subject: Subject) -> None:
    """Bad input raises: the message names the argument, what came and what is wanted."""
    for kind in subject.kinds:
        scene = subject.random(kind)
        cases = [_bad_shapes(scene), _bad_labels(subject, scene), _bad_options(scene)]
        if subject.strict:
            cases += [_bad_types(scene), _bad_numbers(scene)]
            cases += [_bad_soft_values(scene)] if kind in subject.soft_kinds else []
        for case in cases:
            for on, tensors, keywords, pattern in case:
                if subject.has(*keywords):
                    call = functools.partial(subject.call, *tensors)
                    refused(subject, call, scene.keywords | keywords, f"{kind}: {on}", pattern)


# What is wrong, the two tensors, the parameters, and what the message must say.
BadInput = tuple[str, tuple[Any, Any], dict[str, Any], str]


def _bad_shapes(scene: Scene) -> Iterator[BadInput]:
    z, y = scene.logits, scene.target
    shape = re.escape(str(tuple(z.shape)))
    if len(scene.space) > 1:  # as many pixels in another shape, which broadcasting may let pass
        *front, last = scene.space
        folded = (*front[:-1], front[-1] // 2, 2 * last)
        other = y.reshape(*y.shape[: y.ndim - len(folded)], *folded)
        got = re.escape(str(tuple(other.shape)))
        yield f"target of shape {tuple(other.shape)}", (z, other), {}, rf"target.*{got}.*{shape}"
    yield "target with one image, logits with two", (z, y[:1]), {}, rf"target.*{shape}"


def _bad_labels(subject: Subject, scene: Scene) -> Iterator[BadInput]:
    z, y = scene.logits, scene.target
    top = CLASSES - 1 if scene.kind == "multiclass" else 1
    mask = torch.where(y > 0, 255, 0).to(y.dtype)
    pattern = r"target.*255.*\[0, \d\].*(divide|ignore_index=255)"
    yield "target of 0 and 255", (z, mask), {}, pattern
    if subject.kinds[scene.kind] != "labels":
        return
    small = mask.to(torch.uint8)  # in which 255 and -1 are the same
    yield "uint8 target of 0 and 255", (z, small), {"ignore_index": -1}, pattern
    high = torch.where(y > 0, top + 1, 0)
    yield f"a label {top + 1}", (z, high), {}, rf"target.*\b{top + 1}\b.*\[0, {top}\]"
    hole = torch.where(y > 0, -1, 0)
    yield "a label -1", (z, hole), {}, r"target.*-1\b.*ignore_index=-1"


def _bad_types(scene: Scene) -> Iterator[BadInput]:
    z, y = scene.logits, scene.target
    yield "integer logits", (z.long(), y), {}, r"logits.*int64.*float32"
    yield "logits without space axes", (z.flatten(1), y), {}, r"logits.*\(2, \d+\).*space"
    yield "logits as a list", (z.tolist(), y), {}, r"logits.*list.*[Tt]ensor"
    yield "target as an array", (z, y.numpy()), {}, r"target.*ndarray.*[Tt]ensor"
    yield "target on another device", (z, y.to("meta")), {}, r"target.*meta.*cpu"
    if scene.kind == "multiclass":
        yield "float labels", (z, y.float()), {}, r"target.*float32.*long"
        masks = scene.values.long()
        yield "one-hot integers", (z, masks), {}, r"target.*float\(\)"
    if scene.kind == "binary":
        index = torch.arange(y.numel()).view(y.shape) % 3
        yield "class indices 0 to 2", (z, index), {}, r"target.*\b2\b.*1 channel\b"


def _bad_soft_values(scene: Scene) -> Iterator[BadInput]:
    z, values = scene.logits, scene.values
    yield "soft values up to 1.5", (z, 1.5 * values), {}, r"target.*1\.5.*\[0, 1\]"
    holes = torch.where(values > 0, math.nan, values)
    yield "soft values with NaN", (z, holes), {}, r"target.*nan.*\[0, 1\]"
    options = {"ignore_index": IGNORED}
    yield "ignore_index with soft values", (z, values), options, r"ignore_index.*255.*pixel_weight"
    if scene.kind == "multiclass":
        yield "soft values that add up to 0.5", (z, values / 2), {}, r"target.*0\.5.*multilabel"


def _bad_options(scene: Scene) -> Iterator[BadInput]:
    tensors = scene.logits, scene.target
    weight = torch.ones(len(scene.logits), *scene.space)
    bad: list[tuple[str, Any, str]] = [
        ("reduction", "avg", r"reduction.*'avg'.*'mean'"),
        ("aggregate", "images", r"aggregate.*'images'.*'batch'"),
        ("absent", "drop", r"absent.*'drop'.*'worst'"),
        ("class_weight", [1.0] * 7, r"class_weight.*\(7,\).*channel"),
    ]
    for name, value, pattern in bad:
        yield f"{name}={value!r}", tensors, {name: value}, pattern
    shape, keywords = tuple(weight[:, :-1].shape), {"pixel_weight": weight[:, :-1]}
    pattern = rf"pixel_weight.*{re.escape(str(shape))}.*no channel"
    yield f"pixel_weight of shape {shape}", tensors, keywords, pattern


def _bad_numbers(scene: Scene) -> Iterator[BadInput]:
    tensors = scene.logits, scene.target
    ones = torch.ones(len(scene.logits), *scene.space)
    bad: list[tuple[str, Any, str]] = [
        ("ignore_index", 1.5, r"ignore_index.*1\.5.*int"),
        ("multilabel", "yes", r"multilabel.*'yes'.*True"),
        ("include_background", "no", r"include_background.*'no'.*True"),
        ("class_weight", [-1.0] * scene.logits.shape[1], r"class_weight.*-1.*>= 0"),
        ("process_group", object(), r"process_group.*'batch'"),
        ("pixel_weight", 2.0, r"pixel_weight.*float.*[Tt]ensor"),
    ]
    for name, value, pattern in bad:
        yield f"{name}={value!r}", tensors, {name: value}, pattern
    pattern = r"pixel_weight.*bool.*float\(\)"
    yield "pixel_weight of dtype bool", tensors, {"pixel_weight": ones > 0}, pattern
    for value, wanted in ((math.nan, ">= 0"), (-1.0, ">= 0"), (math.inf, "finite")):
        weight = ones.clone()
        weight[(0,) * weight.ndim] = value
        pattern = rf"pixel_weight.*{value:g}.*{wanted}"
        yield f"pixel_weight with a {value:g}", tensors, {"pixel_weight": weight}, pattern


def check_parameters_matter(subject: Subject) -> None:
    """A parameter of its own changes something."""
    changes = subject.changes()
    if not changes:
        raise NotApplicableError("it has no numbers or flags of its own")
    scenes = [subject.random(kind) for kind in subject.kinds]
    plain = [subject.value(scene) for scene in scenes]
    for parameters in changes:
        try:
            values = [subject.call(s.logits, s.target, **s.keywords | parameters) for s in scenes]
        except (TypeError, ValueError):  # not a value for it
            continue
        differs = any(not torch.equal(v, p) for v, p in zip(values, plain, strict=True))
        on = f"random blobs{given(parameters)}"
        require(differs, on, f"another value than {number(plain[0])}, the default's", values[0])


def check_parameters_out_of_range(subject: Subject) -> None:
    """A parameter out of range is refused by name, or keeps the promises."""
    own = {n: d for n, d in subject.own.items() if isinstance(d, (int, float, str))}
    if not own or not subject.strict:
        raise NotApplicableError(
            "nobody stated what its parameters mean" if own else "it has no parameters of its own"
        )
    scene = subject.scene(next(iter(subject.kinds)), "two_unequal")
    call = functools.partial(subject.call, scene.logits, scene.target)
    for name, default in own.items():
        wrong_types: list[Any] = ["no such choice"]
        if isinstance(default, str):
            wrong_types += [1]
        elif not isinstance(default, bool):
            wrong_types += [math.nan]
        for bad in wrong_types:
            keywords, on = scene.keywords | {name: bad}, f"{name}={bad!r}"
            refused(subject, call, keywords, on, rf"{name}.*{re.escape(str(bad))}")
        if isinstance(default, (int, float)) and not isinstance(default, bool):
            for odd in (-1, -math.inf, math.inf):
                _check_odd(subject, name, odd)


def _check_odd(subject: Subject, name: str, odd: float) -> None:
    """An odd number is refused by name, or the loss still tells right from wrong."""
    low, high = subject.facts.value_range
    kind = next(iter(subject.kinds))
    for base in subject.scenes(("two_unequal", "empty", "full"), kind):
        right, wrong = base.perfect(12.0), base.predict(2 - 4 * base.values)
        try:
            values = [
                subject.call(s.logits, s.target, **s.keywords, **{name: odd})
                for s in (right, wrong)
            ]
        except (TypeError, ValueError) as error:
            require(name in str(error), f"{name}={odd}", f"an error that names {name}", str(error))
            return
        fine = all(bool(v.isfinite()) and low - 1e-6 <= v <= high + 1e-6 for v in values)
        expected = "an error, or a finite loss in its range, larger for the worse prediction"
        got = f"{number(values[0])} for the perfect one, {number(values[1])} for a bad one"
        require(fine and values[0] < values[1], f"{name}={odd}, {base}", expected, got)
