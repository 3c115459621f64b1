"""Promises about manners and machinery: side effects, memory layouts, compilers and devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from .promise import BrokenPromiseError, agree, first_line, given, require
from .scenes import IGNORED, Scene
from .subject import Subject


def check_deterministic(subject: Subject) -> None:
    """The same input gives the same bits, and draws no random numbers."""
    for kind in subject.kinds:
        scene = subject.random(kind)
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first, slope = subject.value_and_gradient(scene)
        untouched = torch.equal(before, torch.get_rng_state())
        require(untouched, scene, "no random numbers drawn", "a changed state of the generator")
        torch.manual_seed(2)
        second, again = subject.value_and_gradient(scene)
        same = torch.equal(first, second) and torch.equal(slope, again)
        require(same, scene, "the same value and gradient again", f"{second} after {first}")


def check_inputs_untouched(subject: Subject) -> None:
    """Nothing that is passed in is changed."""
    for scene in subject.scenes(("two_unequal", "ignored_strip")):
        extra: dict[str, Tensor] = {}
        if subject.has("pixel_weight"):
            extra["pixel_weight"] = subject.pixel_weight(scene)
        if subject.has("class_weight"):
            extra["class_weight"] = torch.ones(scene.logits.shape[1])
        passed = extra | {"logits": scene.logits, "target": scene.target}
        before = {name: (tensor._version, tensor.clone()) for name, tensor in passed.items()}
        with torch.no_grad():  # writing to a leaf would raise otherwise
            subject.value(scene, **extra)
        subject.value_and_gradient(scene, **extra)
        for name, (version, copy) in before.items():
            same = passed[name]._version == version and torch.equal(passed[name], copy)
            require(same, scene, f"{name} as it was", f"{name} written to")


def check_layouts(subject: Subject) -> None:
    """How a tensor lies in memory does not matter."""

    def reverse(x: Tensor) -> Tensor:
        return x.permute(*reversed(range(x.ndim)))

    layouts: dict[str, Callable[[Tensor], Tensor]] = {
        "axes stored in reverse": lambda x: reverse(reverse(x).contiguous()),
        "every second entry of a larger tensor": lambda x: x.repeat_interleave(2, -1)[..., ::2],
        "channels last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    }
    for kind in subject.kinds:
        scene = subject.random(kind)
        wanted, slope = subject.value_and_gradient(scene)
        for name, lay in layouts.items():
            laid = scene.map(lay, f"{scene.name}, {name}")
            laid = laid.change(logits=laid.logits.requires_grad_())
            value = subject.value(laid)
            (gradient,) = torch.autograd.grad(value.sum(), laid.logits)
            agree(value, wanted, laid, "what contiguous tensors give", **subject.exact)
            agree(gradient, slope, laid, "the gradient of contiguous ones", **subject.exact)
        once = scene.image(0).map(lambda x: x.expand(2, *x.shape[1:]), "one image, expanded to two")
        wanted = subject.value(once.map(Tensor.contiguous))
        agree(subject.value(once), wanted, once, "what two copies give", **subject.exact)


def check_compile(subject: Subject) -> None:
    """torch.compile takes the loss as one graph and gives the same numbers."""
    declared = subject.facts.compile
    for kind in subject.kinds:
        scene = subject.random(kind)
        parameters: dict[str, Any] = {}
        if subject.has("pixel_weight"):
            parameters["pixel_weight"] = subject.pixel_weight(scene)
        if subject.can_ignore(kind):
            parameters["ignore_index"] = IGNORED
        for keywords in (parameters, {}) if parameters and kind == "binary" else ({},):
            on = f"{scene}{given(keywords)}, fullgraph=True"
            torch._dynamo.reset()
            compiled = torch.compile(subject.call, fullgraph=True, backend="aot_eager")
            twin = dataclasses.replace(subject, call=compiled)
            try:
                value, gradient = twin.value_and_gradient(scene, **keywords)
            except BrokenPromiseError as failure:
                hint = subject.hint("compile", False)
                require(not declared, on, "one graph", failure.got, hint)
                continue
            finally:
                torch._dynamo.reset()
            require(declared, on, "a break: stated is compile=False", "one graph")
            wanted, slope = subject.value_and_gradient(scene, **keywords)
            agree(value, wanted, on, "the eager value", **subject.exact)
            agree(gradient, slope, on, "the eager gradient", **subject.exact)


def check_func(subject: Subject) -> None:
    """torch.func.grad and vmap give what autograd gives."""
    declared = subject.facts.func
    for kind in subject.kinds:
        scene = subject.random(kind, count=3)

        def loss(logits: Tensor, target: Tensor, keywords: dict = scene.keywords) -> Tensor:
            return subject.call(logits, target, **keywords)

        def one(logits: Tensor, target: Tensor, loss: Callable = loss) -> Tensor:
            return loss(logits.unsqueeze(0), target.unsqueeze(0))

        error, on = "", f"{scene}, torch.func"
        try:
            slope = torch.func.grad(loss)(scene.logits, scene.target)
            values = torch.func.vmap(one)(scene.logits, scene.target)
            slopes = torch.func.vmap(torch.func.grad(one))(scene.logits, scene.target)
        except Exception as raised:
            error = first_line(raised)
        hint = subject.hint("func", not declared)
        if not declared:
            require(error, on, "an error: stated is func=False", "a value", hint)
            continue
        require(not error, on, "a value", error, hint)
        agree(slope, subject.gradient(scene), f"{on}.grad", "autograd's", **subject.exact)
        wanted = [subject.value_and_gradient(image) for image in scene.images()]
        each = torch.stack([value for value, _ in wanted])
        agree(values, each, f"{on}.vmap", "the single images", **subject.exact)
        each = torch.cat([gradient for _, gradient in wanted])
        agree(slopes, each, f"{on}.vmap of grad", "their gradients", **subject.exact)


def check_device(subject: Subject) -> None:
    """On another device nothing is made elsewhere and no value is read back."""
    # Fake tensors on the meta device know that they are not on the CPU and have no values. They
    # need no accelerator, and unlike fake CUDA tensors they can be differentiated without one.
    for kind in subject.kinds:
        scene = subject.random(kind)
        for parameters in _device_settings(subject, scene):
            on = f"{scene}{given(parameters)}, on an accelerator"
            with FakeTensorMode(allow_non_fake_inputs=True):
                logits, target = _there(scene.logits).requires_grad_(), _there(scene.target)
                keywords = {n: _there(v) for n, v in (scene.keywords | parameters).items()}
                try:
                    value = subject.call(logits, target, **keywords)
                    torch.autograd.grad(value.sum(), logits, allow_unused=True)
                except Exception as error:
                    raise BrokenPromiseError(on, "a value there", first_line(error)) from error
                place = value.device.type
            require(place == "meta", on, "a value on the device of the logits", f"one on {place}")


def _there(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty(value.shape, dtype=value.dtype, device="meta")


def _device_settings(subject: Subject, scene: Scene) -> Iterator[dict[str, Any]]:
    yield from subject.settings()
    if subject.has("pixel_weight"):
        yield {"pixel_weight": subject.pixel_weight(scene)}
    if subject.can_ignore(scene.kind):
        yield {"ignore_index": IGNORED}
    if subject.has("class_weight"):
        yield {"class_weight": [1.0] * scene.logits.shape[1]}
    if subject.has("absent"):
        yield from ({"absent": name} for name in ("skip", "worst"))


def check_cost(subject: Subject) -> None:
    """Four times the pixels are about four times the work; it sorts only if declared."""
    small, large = {1: ((256,), (1024,)), 3: ((4, 16, 16), (4, 32, 32))}.get(
        subject.dims, ((*[1] * (subject.dims - 2), 16, 16), (*[1] * (subject.dims - 2), 32, 32))
    )
    for kind in subject.kinds:
        work = []
        for space in (small, large):
            with _Work() as counted:
                subject.value_and_gradient(subject.random(kind, space=space, count=1))
            work.append(counted)
        growth = work[1].elements / max(work[0].elements, 1)
        on = f"{kind}, images of {small} and of {large}"
        require(growth <= 5, on, "about 4 times the work", f"{growth:.3g} times")
        if "cost" in subject.stated:
            declared = subject.facts.cost
            sorts = "a sort" if work[1].sorts else "no sort"
            expected = "a sort" if declared == "n log n" else "no sort"
            require(sorts == expected, on, f"{expected}: stated is cost={declared!r}", sorts)


class _Work(TorchDispatchMode):
    """Counts the elements of all tensors that are computed, and notices sorts."""

    SORTS = frozenset({"aten::sort", "aten::topk", "aten::argsort", "aten::msort"})

    def __init__(self) -> None:
        super().__init__()
        self.elements, self.sorts = 0, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        results = result if isinstance(result, (tuple, list)) else (result,)
        self.elements += sum(x.numel() for x in results if isinstance(x, Tensor))
        self.sorts |= func._schema.name in self.SORTS
        return result
