"""The table of losses, how a loss is found in it, and the modules."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import io
import math
import pickle
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from samples import BINARY, CLASSES, ONE, THREE
from torch import Tensor, nn

import seglosses_nb
from seglosses_nb import (
    LOSSES,
    BinaryCrossEntropy,
    CrossEntropy,
    DiceLoss,
    LossInfo,
    SegLoss,
    dice_loss,
    get_loss,
    register,
    registry,
)

ROOT = Path(__file__).parents[1]
SHARED = {
    "multilabel": False,
    "ignore_index": None,
    "pixel_weight": None,
    "reduction": "mean",
}
SHARED_REGION = {
    "aggregate": "image",
    "include_background": True,
    "class_weight": None,
    "absent": "smooth",
    "process_group": None,
}
EACH = pytest.mark.parametrize("name", LOSSES)


# ------------------------------------------------------------------------------------- the facts


def test_the_first_losses_are_there():
    assert {"binary_cross_entropy", "cross_entropy", "dice_loss"} <= set(LOSSES)


@EACH
def test_one_name_for_function_module_and_chapter(name):
    info = LOSSES[name]
    assert info.name == info.function.__name__ == name
    assert name.isidentifier()
    assert name == name.lower()
    assert info.module.__name__ == "".join(part.capitalize() for part in name.split("_"))
    assert info.module.fn is info.function
    assert info.chapter == f"{info.family}/{name}"
    assert getattr(seglosses_nb, name) is info.function
    assert getattr(seglosses_nb, info.module.__name__) is info.module


@EACH
def test_a_loss_lives_in_the_module_of_its_family(name):
    info = LOSSES[name]
    assert info.function.__module__ == f"seglosses_nb.{info.family}"
    assert info.module.__module__ == f"seglosses_nb.{info.family}"


@EACH
def test_signature_keeps_the_contract(name):
    parameters = list(inspect.signature(LOSSES[name].function).parameters.values())
    assert [p.name for p in parameters[:2]] == ["logits", "target"]
    assert all(p.default is p.empty for p in parameters[:2])
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[2:])
    assert all(p.default is not p.empty for p in parameters[2:])
    shared = SHARED | (SHARED_REGION if LOSSES[name].unit == "region" else {})
    defaults = {p.name: p.default for p in parameters[2:]}
    assert shared.items() <= defaults.items()
    assert LOSSES[name].parameters == defaults


@EACH
def test_facts_are_among_those_that_exist(name):
    info = LOSSES[name]
    assert info.family in registry.FAMILIES
    assert info.unit in get_args(registry.Unit)
    assert info.targets
    assert set(info.targets) <= set(get_args(registry.Kind))
    assert info.empty_target in ("costs", "free")
    assert info.cost in ("n", "n log n", "n * steps")
    low, high = info.value_range
    assert low <= info.minimum <= high
    assert not math.isnan(info.minimum)
    assert info.space_dims is None or all(dims >= 1 for dims in info.space_dims)
    assert set(info.sides) <= set(info.parameters)
    assert set(info.sides.values()) <= {"false positives", "false negatives"}
    assert all(reason.strip() for reason in info.blind_to.values())
    assert all(statement.strip() for statement in info.deviations)
    assert all(info.aliases.values())


@EACH
def test_words_and_formula_are_there(name):
    info = LOSSES[name]
    assert re.fullmatch(r"[A-Z].*\.", info.summary, re.DOTALL)
    assert info.formula.count("{") == info.formula.count("}")
    assert "$" not in info.formula  # the page puts it into an equation itself
    statements = [case.statement for case in info.special_cases]
    assert len(set(statements)) == len(statements)


@EACH
def test_source_is_in_the_references(name):
    entries = re.findall(r"^@\w+\{([^,\s]+),", (ROOT / "book/references.bib").read_text(), re.M)
    assert LOSSES[name].cite in entries
    assert len(set(entries)) == len(entries)


@EACH
def test_facts_cannot_be_changed(name):
    with pytest.raises(dataclasses.FrozenInstanceError):
        LOSSES[name].family = "beyond"
    for case in LOSSES[name].special_cases:
        with pytest.raises(dataclasses.FrozenInstanceError):
            case.statement = ""


@EACH
def test_docstring_says_everything(name):
    text = inspect.getdoc(LOSSES[name].function)
    first = text.splitlines()[0]
    assert first.endswith(".")
    headings = re.findall(r"^([A-Z][\w ]+):$", text, re.M)
    wanted = ["Shape", "Args", "Returns", "Edge cases", "Special cases", "Differs from"]
    wanted += ["Raises", "Example", "Cite"]
    assert [heading for heading in headings if heading in wanted] == wanted
    assert ".. math::" in text
    arguments = re.search(r"^Args:\n(.*?)^\S", text, re.DOTALL | re.M)[1]
    documented = re.findall(r"^    (\w+):", arguments, re.M)
    assert documented == list(inspect.signature(LOSSES[name].function).parameters)


def test_exports_are_sorted_and_complete():
    names = seglosses_nb.__all__
    constants, classes, functions = (
        sorted(n for n in names if n.isupper()),
        sorted(n for n in names if not n.isupper() and n[0].isupper()),
        sorted(n for n in names if not n[0].isupper()),
    )
    assert names == constants + classes + functions
    assert len(set(names)) == len(names)
    assert all(hasattr(seglosses_nb, name) for name in names)
    assert {info.module.__name__ for info in LOSSES.values()} | set(LOSSES) <= set(names)
    modules = [obj for obj in vars(seglosses_nb).values() if inspect.isclass(obj)]
    assert {m.__name__ for m in modules if issubclass(m, SegLoss)} <= set(names)


def test_every_module_of_a_loss_is_registered():
    """A class line without @register on the function would be a loss outside the battery."""
    known = {info.module for info in LOSSES.values()}
    for family in registry.FAMILIES:
        module = getattr(seglosses_nb, family, None)
        for thing in vars(module).values() if module else ():
            if inspect.isclass(thing) and issubclass(thing, SegLoss) and thing is not SegLoss:
                assert thing in known


# ----------------------------------------------------------------------------------- registration


@pytest.fixture
def spare():
    """Let a test register losses of its own."""
    before = dict(LOSSES)
    yield
    LOSSES.clear()
    LOSSES.update(before)


FACTS = {
    "family": "region",
    "unit": "region",
    "summary": "A test.",
    "formula": "L",
    "cite": "dice1945association",
}


@pytest.mark.usefixtures("spare")
def test_a_loss_of_your_own():
    @register(**FACTS)
    def own_loss(logits: Tensor, target: Tensor, *, power: float = 2.0) -> Tensor:
        """Return a power."""
        return (logits.sigmoid().squeeze(1) - target).abs() ** power

    class OwnLoss(SegLoss, fn=own_loss): ...

    assert list(LOSSES)[-1] == "own_loss"
    assert isinstance(LOSSES["own_loss"], LossInfo)
    assert LOSSES["own_loss"].module is OwnLoss
    assert isinstance(get_loss("own_loss", power=3.0), OwnLoss)
    assert repr(OwnLoss(power=3.0)) == "OwnLoss(power=3.0)"
    torch.testing.assert_close(OwnLoss(power=3)(ONE, BINARY), own_loss(ONE, BINARY, power=3))


@pytest.mark.usefixtures("spare")
def test_a_name_can_be_given_once():
    def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
        """Return nothing much."""
        return logits.sum() + target.sum()

    with pytest.raises(ValueError, match="dice_loss is already registered"):
        register(**FACTS)(dice_loss)
    assert LOSSES["dice_loss"].module is DiceLoss


def test_a_missing_or_misspelt_fact_is_an_error():
    def nameless_loss(logits: Tensor, target: Tensor) -> Tensor:
        """Return nothing much."""
        return logits.sum() + target.sum()

    with pytest.raises(TypeError, match="cite"):
        register(**{k: v for k, v in FACTS.items() if k != "cite"})(nameless_loss)
    with pytest.raises(TypeError, match="colour"):
        register(**FACTS, colour="red")(nameless_loss)
    assert "nameless_loss" not in LOSSES


@pytest.mark.usefixtures("spare")
def test_a_loss_without_a_module_is_said_to_have_none():
    @register(**FACTS)
    def bare_loss(logits: Tensor, target: Tensor) -> Tensor:
        """Return nothing much."""
        return logits.sum() + target.sum()

    with pytest.raises(ValueError, match="bare_loss has no module"):
        get_loss("bare_loss")


# --------------------------------------------------------------------------------------- get_loss


@EACH
def test_get_loss_takes_all_names_of_a_loss(name):
    info = LOSSES[name]
    for alias in (name, info.module.__name__, name.removesuffix("_loss")):
        loss = get_loss(alias)
        assert type(loss) is info.module
    loss = get_loss(name, reduction="sum", ignore_index=255)
    assert loss.reduction == "sum"
    assert loss.ignore_index == 255


def test_get_loss_passes_parameters():
    loss = get_loss("dice_loss", squared=True, smooth=0.0)
    expected = dice_loss(ONE, BINARY, squared=True, smooth=0.0)
    torch.testing.assert_close(loss(ONE, BINARY), expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dise_loss", r"name is 'dise_loss'.*did you mean dice_loss"),
        ("DiceLos", r"name is 'DiceLos'.*did you mean DiceLoss"),
        ("cross_entropy_loss", r"did you mean .*cross_entropy"),
        ("BCE", r"name is 'BCE'.*known: .*binary_cross_entropy"),
        ("qqq", r"name is 'qqq'.*known: .*binary_cross_entropy, .*dice_loss"),
        ("", r"name is ''.*known: "),
        (None, r"name is None.*known: "),
        (7, r"name is 7.*known: "),
    ],
)
def test_get_loss_helps_with_a_wrong_name(name, message):
    with pytest.raises(ValueError, match=message):
        get_loss(name)


def test_get_loss_helps_with_a_wrong_parameter():
    with pytest.raises(TypeError, match=r"DiceLoss: .*'sqared'; did you mean squared\?"):
        get_loss("dice_loss", sqared=True)
    with pytest.raises(TypeError, match=r"CrossEntropy: .*'gamma'; it takes multilabel, "):
        get_loss("cross_entropy", gamma=2)


# ---------------------------------------------------------------------------------------- modules


@EACH
def test_class_has_the_signature_of_the_function(name):
    info = LOSSES[name]
    ours = inspect.signature(info.module).parameters
    theirs = inspect.signature(info.function).parameters
    assert dict(ours) == {k: p for k, p in theirs.items() if p.kind is p.KEYWORD_ONLY}
    assert inspect.getdoc(info.function) in inspect.cleandoc(info.module.__doc__)
    assert info.module.__doc__.startswith("Module form of")


@EACH
def test_module_equals_function(name):
    info = LOSSES[name]
    weight = torch.rand(2, 8, 8)
    for named in ({}, {"reduction": "none"}, {"ignore_index": 0}, {"pixel_weight": weight}):
        torch.testing.assert_close(
            info.module(**named)(ONE, BINARY), info.function(ONE, BINARY, **named)
        )
        torch.testing.assert_close(  # the same for one call
            info.module()(ONE, BINARY, **named), info.function(ONE, BINARY, **named)
        )
    once = info.module(reduction="sum")
    assert once(ONE, BINARY, reduction="none").ndim > 0
    assert once(ONE, BINARY).ndim == 0  # the change was for one call


@EACH
def test_module_has_nothing_to_learn_unless_it_says_so(name):
    module = LOSSES[name].module()
    assert isinstance(module, nn.Module)
    assert LOSSES[name].stateful or not list(module.parameters())
    assert LOSSES[name].stateful or not module.state_dict()


@EACH
def test_wrong_parameters_name_the_class(name):
    module = LOSSES[name].module
    with pytest.raises(TypeError, match=rf"^{module.__name__}: .*'weigth'"):
        module(weigth=1)
    with pytest.raises(TypeError, match=rf"^{module.__name__}: .*keywords"):
        module("sum")
    with pytest.raises(TypeError, match="weigth"):
        module()(ONE, BINARY, weigth=1)


@pytest.mark.parametrize(
    ("module", "shown"),
    [
        (DiceLoss(), "DiceLoss()"),
        (DiceLoss(smooth=1.0, squared=False), "DiceLoss()"),
        (DiceLoss(squared=True, smooth=0.5), "DiceLoss(squared=True, smooth=0.5)"),
        (DiceLoss(class_weight=[1, 2]), "DiceLoss(class_weight=[1, 2])"),
        (DiceLoss(class_weight=torch.tensor([1.0, 2.0])), "DiceLoss(class_weight=[1.0, 2.0])"),
        (DiceLoss(class_weight=np.array([1.0, 2.0])), "DiceLoss(class_weight=[1.0, 2.0])"),
        (DiceLoss(class_weight=(1.0, 2.0)), "DiceLoss(class_weight=(1.0, 2.0))"),
        (
            CrossEntropy(ignore_index=255, reduction="sum"),
            "CrossEntropy(ignore_index=255, reduction='sum')",
        ),
        (BinaryCrossEntropy(multilabel=True), "BinaryCrossEntropy(multilabel=True)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_repr_shows_what_is_not_the_default(module, shown):
    assert repr(module) == shown


def test_repr_shows_what_was_changed_later():
    loss = DiceLoss()
    loss.smooth = 0.0
    assert repr(loss) == "DiceLoss(smooth=0.0)"
    torch.testing.assert_close(loss(ONE, BINARY), dice_loss(ONE, BINARY, smooth=0.0))


@pytest.mark.parametrize("given", [torch.tensor([1.0, 2, 4]), [1.0, 2, 4], np.array([1.0, 2, 4])])
def test_copies_are_whole(given):
    loss = DiceLoss(class_weight=given, squared=True)
    expected = loss(THREE, CLASSES)
    buffer = io.BytesIO()
    torch.save(loss, buffer)
    buffer.seek(0)
    for twin in (
        copy.copy(loss),
        copy.deepcopy(loss),
        pickle.loads(pickle.dumps(loss)),
        torch.load(buffer, weights_only=False),
    ):
        assert twin is not loss
        assert type(twin) is DiceLoss
        assert repr(twin) == repr(loss)
        assert twin(THREE, CLASSES) == expected


def test_a_deep_copy_is_independent():
    loss = DiceLoss(class_weight=torch.tensor([1.0, 2, 4]))
    twin = copy.deepcopy(loss)
    twin.class_weight[0] = 99
    assert loss.class_weight.tolist() == [1, 2, 4]


def test_tensors_are_buffers_and_follow():
    for given in (torch.tensor([1.0, 2, 4]), np.array([1.0, 2, 4])):
        loss = DiceLoss(class_weight=given)
        assert dict(loss.named_buffers()).keys() == {"class_weight"}
        assert loss.double().class_weight.dtype == torch.float64
        assert loss.half().class_weight.dtype == torch.float16
        torch.testing.assert_close(
            loss(THREE, CLASSES), dice_loss(THREE, CLASSES, class_weight=[1, 2, 4])
        )
        assert loss.to("meta").class_weight.device.type == "meta"
    # Weights are configuration: a checkpoint neither holds nor overwrites them.
    model = nn.ModuleDict({"loss": DiceLoss(class_weight=torch.tensor([1.0, 2, 4]))})
    assert list(model.state_dict()) == []
    nn.ModuleDict({"loss": DiceLoss()}).load_state_dict(model.state_dict())


def test_a_module_for_all_ranks_can_be_copied_and_works_alone():
    loss = copy.deepcopy(DiceLoss(aggregate="batch", process_group="world"))
    assert torch.equal(loss(THREE, CLASSES), dice_loss(THREE, CLASSES, aggregate="batch"))


def test_an_array_given_to_a_module_is_not_shared():
    weights = np.array([1.0, 2, 4])
    loss = DiceLoss(class_weight=weights)
    weights[:] = -1
    assert loss.class_weight.tolist() == [1, 2, 4]


def test_a_subclass_by_hand_keeps_the_rest():
    class Halved(DiceLoss):
        """Dice, halved."""

        def forward(self, logits: Tensor, target: Tensor, **changes: object) -> Tensor:
            return super().forward(logits, target, **changes) / 2

    loss = Halved(squared=True)
    assert repr(loss) == "Halved(squared=True)"
    torch.testing.assert_close(2 * loss(ONE, BINARY), dice_loss(ONE, BINARY, squared=True))
    assert LOSSES["dice_loss"].module is DiceLoss


def test_a_module_trains():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))
    optimiser = torch.optim.Adam(model.parameters(), 0.05)
    image = torch.zeros(1, 1, 16, 16)
    image[..., 4:12, 4:12] = 1
    target = image[:, 0].long()
    for loss in (DiceLoss(), BinaryCrossEntropy()):
        first = loss(model(image), target).item()
        for _ in range(30):
            optimiser.zero_grad()
            value = loss(model(image), target)
            value.backward()
            optimiser.step()
        assert value.item() < first
    assert value.item() < 0.1


def test_a_module_compiles():
    torch.compiler.reset()
    loss = DiceLoss(class_weight=torch.tensor([1.0, 2, 4]), aggregate="batch")
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    logits = THREE.clone().requires_grad_()
    value = compiled(logits, CLASSES)
    value.backward()
    torch.testing.assert_close(value.detach(), loss(THREE, CLASSES))
    assert logits.grad.abs().max() > 0
    torch.compiler.reset()
