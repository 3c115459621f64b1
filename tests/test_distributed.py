"""Two processes that share a batch find what one process finds on the whole batch.

Real processes, real gloo over loopback, real DistributedDataParallel. Both ranks run every scenario
once and write what they saw; the tests compare that with one process.
"""

from __future__ import annotations

import contextlib
import datetime
import multiprocessing
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from seglosses_nb import LOSSES, dice_loss

RANKS = 2
SECONDS = 120  # the work takes 3; a process that hangs is killed
SHARED = {
    name: info.function for name, info in LOSSES.items() if "process_group" in info.parameters
}


@dataclass(frozen=True)
class Scenario:
    """A batch, which image goes to which rank, and how the loss is called."""

    classes: int
    images: tuple[int, int]  # per rank
    target: str = "random"
    keywords: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float64

    def batch(self) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        """Return input, target, pixel weight and the loss's other keywords, of the whole batch."""
        generator = torch.Generator().manual_seed(4)
        total, first = sum(self.images), self.images[0]
        shape = (total, 4, 5)
        x = torch.randn(total, 2, 4, 5, generator=generator, dtype=torch.float64)
        top = 1 if self.classes == 1 else self.classes - 1
        if self.keywords.get("multilabel"):
            shape, top = (total, self.classes, 4, 5), 1
        y = torch.randint(0, top + 1, shape, generator=generator)
        w = torch.rand(total, 4, 5, generator=generator, dtype=torch.float64)
        if self.target == "empty on one rank":
            y[first:] = 0
        elif self.target == "empty":
            y[:] = 0
        elif self.target == "class absent on one rank":
            y[:first] = y[:first].clamp_max(top - 1)
        elif self.target == "class absent":
            y = y.clamp_max(top - 1)
        elif self.target == "ignored on one rank":
            y[first:] = 255
        elif self.target == "ignored":
            y[:] = 255
        elif self.target == "channel ignored on one rank":
            y[first:, 1] = 255
        elif self.target == "weightless on one rank":
            w[first:] = 0
        elif self.target == "soft":
            y = torch.rand(total, 1, 4, 5, generator=generator, dtype=torch.float64)
        return x.to(self.dtype), y, w.to(self.dtype), dict(self.keywords)

    def part(self, rank: int) -> slice:
        """Return which images of the batch are this rank's."""
        return slice(0, self.images[0]) if rank == 0 else slice(self.images[0], None)


SCENARIOS = {
    "binary": Scenario(1, (2, 2)),
    "binary, float32": Scenario(1, (2, 2), dtype=torch.float32),
    "multiclass": Scenario(3, (2, 2)),
    "multilabel": Scenario(3, (2, 2), keywords={"multilabel": True}),
    "soft": Scenario(1, (2, 2), "soft"),
    "squared": Scenario(3, (2, 2), keywords={"squared": True}),
    "ranks of unequal size": Scenario(3, (3, 1)),
    "one rank without images": Scenario(3, (2, 0)),
    "one rank empty": Scenario(1, (2, 2), "empty on one rank"),
    "all ranks empty": Scenario(1, (2, 2), "empty"),
    "class absent on one rank, skip": Scenario(
        3, (2, 2), "class absent on one rank", {"absent": "skip"}
    ),
    "class absent everywhere, skip": Scenario(3, (2, 2), "class absent", {"absent": "skip"}),
    "class absent everywhere, worst": Scenario(3, (2, 2), "class absent", {"absent": "worst"}),
    "one rank ignored": Scenario(1, (2, 2), "ignored on one rank", {"ignore_index": 255}),
    "one rank ignored, classes": Scenario(3, (2, 2), "ignored on one rank", {"ignore_index": 255}),
    "all ranks ignored": Scenario(3, (2, 2), "ignored", {"ignore_index": 255}),
    "one channel ignored on one rank": Scenario(
        2, (1, 1), "channel ignored on one rank", {"ignore_index": 255, "multilabel": True}
    ),
    "pixel weights": Scenario(3, (2, 2), "random", {"pixel_weight": None}),
    "one rank without weight": Scenario(
        3, (2, 2), "weightless on one rank", {"pixel_weight": None}
    ),
    "class weights, no background": Scenario(
        3, (2, 2), keywords={"class_weight": [1.0, 2.0, 4.0], "include_background": False}
    ),
    "sum": Scenario(3, (2, 2), keywords={"reduction": "sum"}),
    "none": Scenario(3, (2, 2), keywords={"reduction": "none"}),
}

TWICE = ("squared", "ranks of unequal size", "class weights, no background")


def network(scenario: Scenario) -> nn.Module:
    """Return a small network, the same in every process, whose parameters DDP averages."""
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, scenario.classes, 1)
    return nn.Sequential(*layers).to(scenario.dtype)


def see(scenario: Scenario, model: nn.Module, part: slice, loss: Any) -> dict[str, Any]:
    """Run forward and backward on a part of the batch; return all that can be compared."""
    x, y, w, keywords = scenario.batch()
    if "pixel_weight" in keywords:
        keywords["pixel_weight"] = w[part]
    logits = model(x[part])
    logits.retain_grad()
    value = loss(logits, y[part], aggregate="batch", **keywords)
    value.sum().backward()
    return {
        "value": value.detach(),
        "logits": logits.grad,
        "parameters": [p.grad for p in model.parameters()],
    }


def curvature(name: str, part: slice, ranks: int, group: Any) -> tuple[Tensor, Tensor]:
    """Return the squared length of a part of the gradient, and its own gradient."""
    scenario = SCENARIOS[name]
    x, y, _, keywords = scenario.batch()
    logits = network(scenario)(x[part]).detach().requires_grad_()
    value = dice_loss(logits, y[part], aggregate="batch", process_group=group, **keywords)
    (slope,) = torch.autograd.grad(value, logits, create_graph=True)
    length = (slope / ranks).square().sum()
    length.backward()
    return length.detach(), logits.grad


def mixed() -> dict[str, list[tuple[Tensor, Tensor, dict[str, Any]]]]:
    """Return logits, target and keywords of two ranks of which one has something to leave out."""
    x, y, w, _ = SCENARIOS["binary"].batch()
    masks = torch.stack([y, 1 - y], 1)
    void = masks.clone()
    void[:, 1] = 255
    both = {"multilabel": True}
    return {
        "weights": [(x[:, :1], y, {}), (2 * x[:, :1], y, {"pixel_weight": w})],
        "ignored masks": [(x, masks, both), (2 * x, void, both | {"ignore_index": 255})],
    }


def work(rank: int, folder: str) -> None:
    """Be one rank: run every scenario and save what was seen."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=RANKS,
        timeout=datetime.timedelta(seconds=SECONDS / 2),
    )
    alone = [dist.new_group([0]), dist.new_group([1])][rank]
    seen = {}
    try:
        for name, scenario in SCENARIOS.items():
            for function in SHARED:
                accepted = LOSSES[function].parameters
                if not set(scenario.keywords) <= set(accepted):
                    continue
                loss = LOSSES[function].module(process_group=dist.group.WORLD)
                model = nn.parallel.DistributedDataParallel(network(scenario))
                seen[function, name] = see(scenario, model, scenario.part(rank), loss)
        for name in TWICE:
            part = SCENARIOS[name].part(rank)
            seen["curvature", name] = curvature(name, part, RANKS, dist.group.WORLD)
        x, y, _, _ = SCENARIOS["binary"].batch()
        z = x[:, :1] * (1 + rank)
        seen["group of one"] = dice_loss(z, y, aggregate="batch", process_group=alone)
        seen["no group"] = dice_loss(z, y, aggregate="batch")
        with contextlib.suppress(ValueError):
            seen["image"] = dice_loss(z, y, aggregate="image", process_group=dist.group.WORLD)
        # Last, because it hangs a rank until the other one leaves if the ranks' messages differ.
        for what, arguments in mixed().items():
            with contextlib.suppress(RuntimeError):
                z, y, named = arguments[rank]
                seen[what] = dice_loss(
                    z, y, aggregate="batch", process_group=dist.group.WORLD, **named
                )
        torch.save(seen, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> list[dict[Any, Any]]:
    """Run the two ranks once and return what each saw."""
    folder = tmp_path_factory.mktemp("ranks")
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=work, args=(rank, str(folder))) for rank in range(RANKS)]
    try:
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(SECONDS)
        assert [rank.exitcode for rank in ranks] == [0] * RANKS
    finally:
        for rank in ranks:
            if rank.is_alive():
                rank.kill()
                rank.join()
    return [torch.load(Path(folder, f"{rank}.pt")) for rank in range(RANKS)]


def pairs() -> list[tuple[str, str]]:
    """Return the losses that can be shared, with the scenarios that they have parameters for."""
    return [
        (function, name)
        for function in SHARED
        for name, scenario in SCENARIOS.items()
        if set(scenario.keywords) <= set(LOSSES[function].parameters)
    ]


def near(found: Tensor, expected: Tensor, scenario: Scenario) -> None:
    """Compare to 1e-6 of the largest entry, and much closer in float64."""
    tolerance = 1e-6 if scenario.dtype == torch.float32 else 1e-12
    atol = tolerance * float(expected.abs().max()) if expected.numel() else 0
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(("function", "name"), pairs())
def test_two_ranks_equal_one_process(seen, function, name):
    scenario = SCENARIOS[name]
    whole = see(scenario, network(scenario), slice(None), SHARED[function])
    for rank in range(RANKS):
        mine = seen[rank][function, name]
        near(mine["value"], whole["value"], scenario)
        # the sum over ranks in the backward: world_size times the gradient of the logits ...
        near(mine["logits"], RANKS * whole["logits"][scenario.part(rank)], scenario)
        # ... and what DDP's average over ranks makes of it
        for found, expected in zip(mine["parameters"], whole["parameters"], strict=True):
            near(found, expected, scenario)


@pytest.mark.parametrize("name", TWICE)
def test_second_derivatives_pass_through_the_group(seen, name):
    """A gradient penalty over two ranks: the parts add up to the penalty of one process."""
    scenario = SCENARIOS[name]
    length, slope = curvature(name, slice(None), 1, None)
    near(sum(seen[rank]["curvature", name][0] for rank in range(RANKS)), length, scenario)
    for rank in range(RANKS):
        near(seen[rank]["curvature", name][1], slope[scenario.part(rank)], scenario)


@pytest.mark.parametrize(("function", "name"), pairs())
def test_both_ranks_hold_the_same_value(seen, function, name):
    first, second = (seen[rank][function, name]["value"] for rank in range(RANKS))
    assert torch.equal(first, second)


def test_the_ranks_would_differ_without_a_group(seen):
    """Otherwise the tests above could not fail."""
    scenario = SCENARIOS["ranks of unequal size"]
    whole = see(scenario, network(scenario), slice(None), dice_loss)
    for rank in range(RANKS):
        alone = see(scenario, network(scenario), scenario.part(rank), dice_loss)
        assert (alone["value"] - whole["value"]).abs() > 1e-3
    assert not torch.equal(seen[0]["no group"], seen[1]["no group"])


def test_a_group_of_one_rank_is_that_rank(seen):
    for rank in range(RANKS):
        torch.testing.assert_close(seen[rank]["group of one"], seen[rank]["no group"])


def test_a_group_needs_sums_over_the_batch(seen):
    assert "image" not in seen[0]
    assert "image" not in seen[1]


@pytest.mark.parametrize("what", ["weights", "ignored masks"])
def test_ranks_may_differ_in_their_arguments(seen, what):
    """What a rank sends to the others must not depend on what only it was given."""
    (z, y, _), (other_z, other_y, named) = mixed()[what]
    if "pixel_weight" in named:
        named = {"pixel_weight": torch.cat([torch.ones_like(y).double(), named["pixel_weight"]])}
    z, y = torch.cat([z, other_z]), torch.cat([y, other_y])
    expected = dice_loss(z, y, aggregate="batch", **named)
    for rank in range(RANKS):
        torch.testing.assert_close(seen[rank][what], expected)
