"""The battery itself: every check catches what it is named for, and nothing else."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import warnings

import pytest
import torch
import torch.nn.functional as F
from planted import BUGS, CORRECT, TverskyByHand, tversky_by_hand, tversky_oracle
from torch import nn

from seglosses_nb import LOSSES, CrossEntropy, DiceLoss, check_loss, dice_loss
from seglosses_nb.__main__ import main
from seglosses_nb.checks import (
    CHECKS,
    DRAWINGS,
    PREDICTIONS,
    BrokenPromiseError,
    Report,
    Result,
    Subject,
    drawing,
    predictions,
)

# Compiling takes longer than all other checks together.
QUICK = [name for name in CHECKS if name != "compile"]

# ------------------------------------------------------------------------------------ planted bugs


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.check}-{bug.name}")
def test_a_planted_bug_is_caught_by_its_check_alone(bug):
    only = CHECKS if bug.check == "compile" else QUICK
    report = check_loss(bug.loss, facts=bug.facts, oracle=bug.oracle, only=only)
    assert set(report.failed) == {bug.check, *bug.company}, f"\n{report}"


def test_every_check_has_a_bug_to_catch():
    assert {bug.check for bug in BUGS} == set(CHECKS)


def test_the_correct_loss_passes_every_check():
    report = check_loss(tversky_by_hand, facts=CORRECT, oracle=tversky_oracle)
    assert report.passed, f"\n{report}"
    assert not report.skipped, f"\n{report}"


@pytest.mark.parametrize("seed", [1, 2])
def test_the_verdict_does_not_depend_on_the_seed(seed):
    report = check_loss(tversky_by_hand, facts=CORRECT, only=QUICK, seed=seed)
    assert report.passed, f"\n{report}"


# A fact that is stated wrongly, and the check that must say so: no fact goes untested.
WRONG_FACTS = {
    "unit": ("pixel", "reductions"),
    "value_range": ((0.0, 0.4), "range"),
    "minimum": (0.1, "minimum"),
    "targets": (("binary",), "targets"),
    "space_dims": ((2,), "dimensions"),
    "spatial": (True, "permutations"),
    "monotone": (False, "monotone"),
    "empty_target": ("free", "edge_targets"),
    "blind_to": ({"shifted on ring": "no reason"}, "wrong_costs"),
    "sides": ({"alpha": "false negatives"}, "sides"),
    "double_backward": (False, "double_backward"),
    "compile": (False, "compile"),
    "func": (False, "func"),
    "stateful": (True, "module"),
    "cost": ("n log n", "cost"),
}


@pytest.mark.parametrize("fact", WRONG_FACTS)
def test_a_wrong_fact_is_found_out(fact):
    value, check = WRONG_FACTS[fact]
    facts = dataclasses.replace(CORRECT, **{fact: value})
    report = check_loss(tversky_by_hand, facts=facts, only=check)
    assert report.failed == (check,), f"\n{report}"


def test_every_fact_that_can_be_wrong_is_tested():
    # What is only printed, or held to its files by other tests.
    said = {"name", "summary", "formula", "cite", "equation", "deviations", "aliases"}
    # The family decides which parameters there must be; the others are what is run.
    run = {"function", "module", "family", "special_cases"}
    facts = {field.name for field in dataclasses.fields(CORRECT)}
    assert facts == said | run | set(WRONG_FACTS)


def test_a_blind_spot_must_have_a_name_of_the_battery():
    facts = dataclasses.replace(CORRECT, blind_to={"moved a little": "?"})
    report = check_loss(tversky_by_hand, facts=facts, only="wrong_costs")
    assert "'moved a little'" in report["wrong_costs"].summary


def recall(logits, target):
    p, y = logits.sigmoid(), target
    return ((1 - p) * y).sum() / y.sum().clamp_min(1)


def test_blind_spots_are_stated_exactly():
    found_too_much = ("dilated", "false_object", "one_wrong_pixel", "all_foreground")
    masks = [mask for mask in DRAWINGS if mask not in ("empty", "full", "ignored_strip")]
    blind = {f"{name} on {mask}": "too much" for name in found_too_much for mask in masks}

    def verdict(blind):
        facts = {"targets": ("binary",), "blind_to": blind}
        return check_loss(recall, facts=facts, only="wrong_costs")["wrong_costs"]

    assert verdict(blind).status == "passed"
    assert verdict(dict.fromkeys(found_too_much, "too much")).status == "passed"
    one_less = {key: why for key, why in blind.items() if key != "dilated on ring"}
    assert "prediction 'dilated' of mask 'ring'" in verdict(one_less).summary
    one_more = blind | {"eroded on ring": "too little"}
    assert verdict(one_more).summary.startswith("eroded on ring: expected blindness")


# ---------------------------------------------------------------------------------- what it takes


def test_a_registered_loss_in_every_shape_is_held_to_its_facts():
    for loss in (
        dice_loss,
        DiceLoss,
        DiceLoss(),
        DiceLoss(squared=True, smooth=0.5),
        functools.partial(dice_loss, squared=True),
    ):
        subject = Subject.of(loss)
        assert subject.strict
        assert subject.facts is LOSSES["dice_loss"]
        assert subject.module is DiceLoss
        assert check_loss(loss, only=["module", "signature", "targets"]).passed


def test_the_parameters_of_a_module_or_partial_reach_the_oracle():
    given = []

    def oracle(logits, target, **parameters):
        given.append(parameters["squared"])
        return 0.0

    for loss in (DiceLoss(squared=True), functools.partial(dice_loss, squared=True)):
        check_loss(loss, oracle=oracle, only="oracle")
    assert given == [True, True]


def test_a_plain_function_of_two_tensors_passes_and_says_what_was_skipped():
    report = check_loss(lambda z, y: ((z.sigmoid() - y) ** 2).mean(), only=QUICK)
    # The only thing that it does wrong: two predictions are compared with one target.
    assert report.failed == ("bad_inputs",), f"\n{report}"
    assert "one image" in report["bad_inputs"].summary
    for name in report.skipped:
        assert re.match("it |no |nobody |its ", report[name].summary), report[name]
    assert report["pixel_weight"].summary == "it has no parameter pixel_weight"
    assert report["class_weight"].summary == "it has no parameter class_weight or reduction"
    assert report["module"].summary == "it is a function without a module"
    assert {"gradcheck", "monotone", "wrong_costs", "permutations"} <= _passed(report)
    assert any("binary targets as floating values" in note for note in report.notes)


def _passed(report: Report) -> set[str]:
    return {result.name for result in report.results if result.status == "passed"}


def _forms(loss, **facts) -> dict[str, str]:
    return Subject.of(loss, facts=facts).kinds


def test_it_finds_out_which_targets_a_stranger_takes():
    bce = F.binary_cross_entropy_with_logits
    assert _forms(lambda z, y: bce(z.squeeze(1), y.to(z.dtype)), targets=("binary",)) == {
        "binary": "labels"
    }
    assert _forms(lambda z, y: bce(z.squeeze(1), y), targets=("binary",)) == {
        "binary": "float labels"
    }
    assert _forms(bce) == {"binary": "values", "multilabel": "values"}
    assert _forms(F.cross_entropy) == {"multiclass": "labels"}

    def with_channel_axis(logits, target):
        return F.cross_entropy(logits, target[:, 0])

    assert _forms(with_channel_axis) == {"multiclass": "channel labels"}
    # (2, 8, 8) labels are broadcast against (2, 1, 8, 8) logits, without an error
    assert _forms(lambda z, y: (z.sigmoid() - y).abs().mean())["binary"] == "values"


def test_a_softmax_is_told_from_sigmoids():
    def softmax(logits, target):
        return -(target * logits.log_softmax(1)).sum(1).mean()

    assert _forms(softmax) == {"multiclass": "values"}


def test_multilabel_targets_are_held_to_sigmoids_when_stated_alone():
    def softmax(logits, target):
        return -(target * logits.log_softmax(1)).sum(1).mean()

    def sigmoids(logits, target):
        return F.binary_cross_entropy_with_logits(logits, target)

    facts = {"targets": ("multilabel",)}
    assert check_loss(softmax, facts=facts, only="multilabel").failed == ("multilabel",)
    assert check_loss(sigmoids, facts=facts, only="multilabel").passed


def test_a_loss_in_single_precision_is_tested_less_exactly():
    report = check_loss(lambda z, y: ((z.float().sigmoid() - y) ** 2).mean(), only=QUICK)
    assert report.failed == ("bad_inputs",), f"\n{report}"
    assert {"gradcheck", "double_backward", "precision"} <= set(report.skipped)
    assert any("float64" in note for note in report.notes)


def test_torch_losses_as_function_class_and_instance():
    for loss in (F.cross_entropy, nn.CrossEntropyLoss, nn.CrossEntropyLoss()):
        report = check_loss(loss, only=["gradcheck", "minimum", "edge_targets", "reductions"])
        assert {"gradcheck", "minimum"} <= _passed(report)
        # the mean over no pixel at all; an instance cannot be told to ignore another label
        assert ("edge_targets" in report.failed) == (not isinstance(loss, nn.Module))


class WithParameters(nn.Module):
    """Takes parameters when it is built, and a weight map when it is called."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, logits, target, pixel_weight=None):
        loss = F.cross_entropy(logits, target, reduction="none")
        weight = torch.ones_like(loss) if pixel_weight is None else pixel_weight
        total = (loss * weight).sum()
        mean = total / weight.sum().clamp_min(1e-30)
        return {"none": loss * weight, "sum": total, "mean": mean}[self.reduction]


def test_a_class_takes_parameters_when_built_and_when_called():
    only = ["module", "reductions", "pixel_weight", "bad_inputs"]
    report = check_loss(WithParameters, family="distribution", only=only)
    assert _passed(report) >= {"module", "reductions", "pixel_weight"}, f"\n{report}"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"loss": "dice_loss"}, TypeError, "loss is a str.*get_loss"),
        ({"loss": lambda z: z.sum()}, TypeError, "1 positional.*logits, target"),
        ({"loss": type("Needy", (), {"__init__": lambda self, x: None})}, TypeError, "instance"),
        ({"loss": lambda z, y: 0 * z.sum()}, ValueError, "takes no binary targets.*0 for"),
        ({"only": "gradchek"}, ValueError, "'gradchek'.*did you mean gradcheck"),
        ({"only": ["gradcheck", "xyz"]}, ValueError, "'xyz'.*known: signature"),
        ({"skip": "compil"}, ValueError, "skip names 'compil'.*did you mean compile"),
        ({"only": "range", "skip": ["range"]}, ValueError, "skip leaves no check to run"),
        ({"family": "regional"}, ValueError, "family is 'regional'.*'region'"),
        ({"facts": {"monoton": True}}, ValueError, "'monoton'.*did you mean monotone"),
    ],
)
def test_what_cannot_be_checked_is_refused_in_words(arguments, error, message):
    with pytest.raises(error, match=f"check_loss: .*{message}"):
        check_loss(**{"loss": dice_loss} | arguments)


def test_only_runs_what_it_names_in_that_order():
    report = check_loss(dice_loss, only=["range", "docstring"])
    assert [result.name for result in report.results] == ["range", "docstring"]
    assert [result.name for result in check_loss(dice_loss, only="range").results] == ["range"]


def test_skip_leaves_out_what_it_names():
    def names(**options):
        return [result.name for result in check_loss(dice_loss, **options).results]

    assert names(only=["range", "docstring", "sides"], skip="docstring") == ["range", "sides"]
    everything_else = [name for name in CHECKS if name not in ("range", "docstring")]
    assert names(skip=everything_else) == ["docstring", "range"]


def test_stating_the_fact_makes_the_failure_go():
    def negative(logits, target):  # as nnU-Net has it: minus the coefficient
        p = logits.sigmoid()
        return -(2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)

    assumed = check_loss(negative, only=["range", "minimum"])
    assert assumed.failed == ("range", "minimum")
    assert "pass facts={'minimum': -1" in assumed["minimum"].message
    facts = {"minimum": -1.0, "value_range": (-1.0, 0.0), "targets": ("binary",)}
    assert check_loss(negative, facts=facts, only=["range", "minimum"]).passed


def test_the_battery_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check_loss(dice_loss, only=["deterministic", "range"])
    assert torch.equal(torch.get_rng_state(), before)


def test_warnings_of_the_loss_are_heard():
    def loud(logits, target):
        warnings.warn("the loss has something to say", stacklevel=1)
        return ((logits.sigmoid() - target) ** 2).mean()

    with pytest.warns(UserWarning, match="something to say"):
        assert check_loss(loud, only="range").passed


# ------------------------------------------------------------------------------------- the report


def _swapped():
    return next(bug for bug in BUGS if bug.name == "sides_swapped")


def test_the_report_prints_a_line_per_check_and_the_first_failure_in_full():
    bug = _swapped()
    report = check_loss(bug.loss, facts=bug.facts, only=["range", "sides", "oracle"])
    text = str(report)
    assert re.search(r"^✓ range  +\d+\.\d\d s  Every value", text, re.M)
    assert re.search(r"^✗ sides  +\d+\.\d\d s  prediction", text, re.M)
    assert re.search(r"^– oracle +\d+\.\d\d s  no oracle was given", text, re.M)
    assert text.splitlines()[-1] == report.conclusion
    assert re.match(r"sides_swapped: 1 passed, 1 failed, 1 skipped in \d+\.\d s", report.conclusion)
    story = text.partition("The first failure, sides\n")[2]
    for word in ("promised:", "input:", "alpha from 0.3 to 0.65", "expected:", "got:"):
        assert word in story
    assert max(map(len, text.splitlines()[: len(report.results)])) <= 140


def test_the_report_can_be_read_by_programs_and_notebooks():
    bug = _swapped()
    report = check_loss(bug.loss, facts=bug.facts, only=["range", "sides", "oracle"])
    assert not report.passed
    assert report.failed == ("sides",)
    assert report.skipped == ("oracle",)
    assert report["range"].status == "passed"
    assert report["range"].seconds >= 0
    with pytest.raises(KeyError, match=r"no check 'gradcheck'.*range"):
        report["gradcheck"]
    page = report._repr_html_()
    assert page.count("<tr>") == 3
    assert "&gt;" not in page or "<code>" in page


def test_the_html_is_escaped():
    result = Result("range", "A promise", "failed", "1 < 2 & <b>", "", 0.0)
    assert "1 &lt; 2 &amp; &lt;b&gt;" in Report("loss", (result,))._repr_html_()


def test_failures_can_be_raised():
    bug = _swapped()
    with pytest.raises(AssertionError, match="✗ sides"):
        check_loss(bug.loss, facts=bug.facts, only="sides", raise_on_failure=True)
    assert check_loss(dice_loss, only="range", raise_on_failure=True).passed


def test_an_error_inside_a_loss_names_the_input():
    def fails_on_empty(logits, target):
        if not target.any():
            raise ZeroDivisionError("no foreground")
        return ((logits.sigmoid() - target) ** 2).mean()

    report = check_loss(fails_on_empty, facts={"targets": ("binary",)}, only="range")
    assert "mask 'empty', binary" in report["range"].message
    assert "ZeroDivisionError: no foreground" in report["range"].message


def test_an_error_of_the_battery_is_a_failure_with_its_traceback(monkeypatch):
    def broken(subject):
        raise RuntimeError("a fault of the check")

    monkeypatch.setitem(CHECKS, "range", dataclasses.replace(CHECKS["range"], function=broken))
    result = check_loss(dice_loss, only="range")["range"]
    assert result.status == "failed"
    assert "raised RuntimeError: a fault of the check" in result.summary
    assert "Traceback" in result.message


def test_a_broken_promise_without_hint_has_four_lines():
    story = BrokenPromiseError("an input", "1", 2.0).explain("A promise.")
    assert story.splitlines() == [
        "promised: A promise.",
        "   input: an input",
        "expected: 1",
        "     got: 2",
    ]


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_a_check_promises_one_sentence(check):
    assert re.fullmatch(r"([A-Z]|torch)[^\n]*\.", check.promise)
    assert len(check.promise) <= 100
    assert list(inspect.signature(check.function).parameters) == ["subject"]


# ------------------------------------------------------------------------------------ command line


def test_the_command_line_exits_with_0_or_1(capsys):
    assert main(["check", "seglosses_nb:dice_loss", "--only", "range", "minimum"]) == 0
    assert "dice_loss: 2 passed, 0 failed" in capsys.readouterr().out
    assert main(["check", "planted:empty_target_for_nothing", "--only", "edge_targets"]) == 1
    assert "✗ edge_targets" in capsys.readouterr().out
    few = ["--only", "range", "minimum", "--skip", "minimum"]
    assert main(["check", "seglosses_nb:dice_loss", *few]) == 0
    assert "dice_loss: 1 passed, 0 failed" in capsys.readouterr().out
    assert main(["check", "seglosses_nb:dice_loss", "--only", "no_such_check"]) == 2
    assert "no_such_check" in capsys.readouterr().err


# -------------------------------------------------------------------------------------- the scenes


def test_the_drawings_are_the_edge_cases_that_they_are_named_for():
    masks = {name: drawing(name) for name in DRAWINGS}
    assert all(mask.shape == (8, 8) for mask in masks.values())
    assert masks["empty"].eq(0).all()
    assert masks["full"].eq(1).all()
    assert masks["one_pixel"].ne(0).sum() == 1
    assert masks["thin_line"].ne(0).any(1).sum() == 1
    for axis, end in ((0, -1), (1, 0)):
        assert masks["border"].ne(0).any(1 - axis)[end]
    large, small = (masks["two_unequal"].eq(label).sum() for label in (1, 2))
    assert large == 8 * small
    assert masks["ring"][3:6, 3:6].eq(0).all()
    assert masks["ring"][2:7, 2:7].ne(0).sum() == 16
    assert masks["ignored_strip"][:, 6:].eq(-1).all()


def test_the_predictions_are_wrong_as_they_are_named():
    assert set(predictions(drawing("ring")[None])) | {"inverted", "uniform"} == set(PREDICTIONS)
    truth = drawing("two_unequal")[None]
    found = predictions(truth)
    assert found["perfect"].equal(truth)
    assert ((found["dilated"] > 0) & (truth == 0)).any()
    assert (found["dilated"] > 0)[truth > 0].all()
    assert ((found["eroded"] == 0) & (truth > 0)).any()
    assert (found["eroded"] == 0)[truth == 0].all()
    assert found["small_missing"].eq(1).equal(truth.eq(1))
    assert not found["small_missing"].eq(2).any()
    assert found["false_object"].ne(truth).sum() == 8
    assert found["one_wrong_pixel"].ne(truth).sum() == 1
    assert found["shifted"].roll(-1, -1).equal(truth)
    # of a single object nothing is the small one
    one = drawing("one_pixel")[None]
    assert predictions(one)["small_missing"].equal(one)


def test_every_kind_of_target_shows_every_drawing():
    subject = Subject.of(CrossEntropy)
    names = {(scene.kind, scene.name) for scene in subject.scenes()}
    assert len(names) == 3 * len(DRAWINGS)
    assert Subject.of(TverskyByHand, facts=CORRECT).strict
