"""Small inputs for the tests: every kind of target, and the targets at which losses break."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from seglosses_nb import LOSSES

KINDS = ("binary", "multiclass", "multilabel", "soft binary", "soft multiclass", "soft multilabel")
EDGES = ("random", "empty", "full", "one pixel", "absent in one image")

# Parameters of single losses that deserve a round of their own.
VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "dice_loss": ({}, {"smooth": 0.0}, {"smooth": 0.1, "squared": True}),
}


def names_and_kinds() -> list[tuple[str, str]]:
    """Return every registered loss with every kind of target it takes."""
    return [
        (name, kind)
        for name, info in LOSSES.items()
        for kind in KINDS
        if set(kind.split()) <= set(info.targets)
    ]


def sample(
    kind: str,
    edge: str = "random",
    *,
    images: int = 2,
    classes: int = 3,
    space: tuple[int, ...] = (3, 4),
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Return logits, a target and the keywords that say what kind it is."""
    generator = torch.Generator().manual_seed(seed)
    channels = 1 if "binary" in kind else classes
    shape = (images, channels, *space)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    top = 1 if "multiclass" not in kind else channels - 1
    label_shape = (images, *space) if kind in ("binary", "multiclass") else shape
    if edge == "random":
        target = torch.randint(0, top + 1, label_shape, generator=generator)
    else:
        target = torch.full(label_shape, top if edge == "full" else 0)
    if edge == "one pixel":
        target.view(-1)[-2] = top
    if edge == "absent in one image":
        target[-1] = torch.randint(0, top + 1, label_shape[1:], generator=generator)
    if kind.startswith("soft"):
        if edge == "random":
            target = torch.rand(shape, generator=generator, dtype=torch.float64)
        elif "multiclass" in kind:
            target = (target[:, :1] == torch.arange(channels).view(-1, *[1] * len(space))).double()
        else:
            target = target.double()
        if "multiclass" in kind:
            target = target / target.sum(1, keepdim=True)
        target = target.to(dtype)
    named = {"multilabel": True} if "multilabel" in kind else {}
    return logits.to(dtype), target, named


def weightings(logits: Tensor, target: Tensor, seed: int = 1) -> list[tuple[str, Tensor, dict]]:
    """Return ways to weight and ignore pixels: a name, the target and the keywords of each."""
    generator = torch.Generator().manual_seed(seed)
    shape = (logits.shape[0], *logits.shape[2:])
    weight = 3 * torch.rand(shape, generator=generator, dtype=torch.float64)
    weight = weight.masked_fill(torch.rand(shape, generator=generator) < 0.3, 0)
    without_one_image = weight.clone()
    without_one_image[0] = 0
    ways = [
        ("plain", target, {}),
        ("weighted", target, {"pixel_weight": weight.to(logits.dtype)}),
        ("one image without weight", target, {"pixel_weight": without_one_image}),
        ("no weight", target, {"pixel_weight": torch.zeros(shape)}),
    ]
    if not target.is_floating_point():
        holes = torch.rand(target.shape, generator=generator) < 0.3
        some, image, everything = target.clone(), target.clone(), target.clone()
        some[holes] = 255
        image[0] = 255
        everything[...] = 255
        ways += [
            ("ignored", some, {"ignore_index": 255}),
            ("ignored and weighted", some, {"ignore_index": 255, "pixel_weight": weight}),
            ("one image ignored", image, {"ignore_index": 255}),
            ("all ignored", everything, {"ignore_index": 255}),
        ]
    return ways


def region_options(name: str, kind: str, classes: int = 3) -> list[dict[str, Any]]:
    """Return all combinations of what only region losses take; one empty one for the others."""
    if "aggregate" not in LOSSES[name].parameters:
        return [{}]
    channels = 1 if "binary" in kind else classes
    weights = [0.5, 2.0, 1.0, 3.0][:channels]
    return [
        {
            "aggregate": aggregate,
            "absent": absent,
            "include_background": background,
            "class_weight": class_weight,
        }
        for aggregate, absent, background, class_weight in itertools.product(
            ("image", "batch"),
            ("smooth", "skip", "worst"),
            (True, False) if "multiclass" in kind else (True,),
            (None, weights),
        )
    ]


def cases(
    name: str, kind: str, dtype: torch.dtype = torch.float64
) -> Iterator[tuple[str, Tensor, Tensor, dict[str, Any]]]:
    """Yield many inputs for a loss: a description, logits, target and keywords.

    Every edge meets every weighting and every variant; the options of region losses take turns.
    """
    options = itertools.cycle(region_options(name, kind))
    for seed, edge in enumerate(EDGES):
        logits, target, named = sample(kind, edge, seed=seed, dtype=dtype)
        for way, changed, weighting in weightings(logits, target):
            for variant in VARIANTS.get(name, ({},)):
                keywords = named | weighting | variant | next(options)
                shown = ", ".join(
                    f"{k}={v!r}" for k, v in keywords.items() if not isinstance(v, Tensor)
                )
                yield f"{edge}, {way}: {shown}", logits, changed, keywords


def as_arrays(keywords: dict[str, Any]) -> dict[str, Any]:
    """Turn the tensors among some keywords into arrays, for an oracle."""
    return {k: v.numpy() if isinstance(v, Tensor) else v for k, v in keywords.items()}


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return seeded logits."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def labels(*shape: int, top: int = 1, seed: int = 1) -> Tensor:
    """Return seeded labels from 0 to ``top``."""
    return torch.randint(0, top + 1, shape, generator=torch.Generator().manual_seed(seed))


def gradient(loss: Callable[..., Tensor], logits: Tensor, *rest: Any, **named: Any) -> Tensor:
    """Return the gradient of the sum of a loss for its logits."""
    logits = logits.clone().requires_grad_()
    loss(logits, *rest, **named).sum().backward()
    return logits.grad


def with_value(tensor: Tensor, value: float) -> Tensor:
    """Return a copy with one value put in."""
    tensor = tensor.clone()
    tensor.view(-1)[5] = value
    return tensor


# Small inputs of every kind, two images of 8 x 8 pixels, to be read only.
ONE, THREE = normal(2, 1, 8, 8), normal(2, 3, 8, 8)
BINARY, CLASSES = labels(2, 8, 8), labels(2, 8, 8, top=2)
SOFT_ONE, SOFT_THREE = ONE.sigmoid(), THREE.softmax(1)
MASKS = labels(2, 3, 8, 8)
