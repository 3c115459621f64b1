"""Every promise of the battery, of every loss: one test each, and nothing skipped in silence."""

from __future__ import annotations

import pytest
import torch
from oracles import ORACLES
from system_needs import need

from seglosses_nb import LOSSES, LossInfo, check_loss
from seglosses_nb.checks import CHECKS
from seglosses_nb.checks.subject import REGIONAL, SHARED


def _own_parameters(info: LossInfo) -> bool:
    own = [d for n, d in info.parameters.items() if n not in SHARED | REGIONAL]
    return any(isinstance(default, (int, float, str)) for default in own)


# The only reasons for which a check may skip one of our losses. It must then skip it, too.
APPLIES = {
    "absent": lambda info: "absent" in info.parameters,
    "background": lambda info: "include_background" in info.parameters,
    "class_weight": lambda info: "class_weight" in info.parameters,
    "multilabel": lambda info: "multilabel" in info.targets,
    "parameters_matter": _own_parameters,
    "parameters_out_of_range": _own_parameters,
    "sides": lambda info: bool(info.sides),
    "soft_targets": lambda info: "soft" in info.targets,
    "special_cases": lambda info: bool(info.special_cases),
}

PROMISES = [(loss, check) for loss in LOSSES for check in CHECKS]


@pytest.mark.parametrize(("loss", "check"), PROMISES, ids=[f"{n}-{c}" for n, c in PROMISES])
def test_promise(loss, check):
    info = LOSSES[loss]
    report = check_loss(info.function, oracle=ORACLES[loss], only=check)
    result = report[check]
    assert report.passed, f"\n{result.message}"
    applies = APPLIES.get(check, lambda info: True)(info)
    assert result.status == ("passed" if applies else "skipped"), result.summary


@pytest.mark.parametrize("loss", LOSSES)
def test_the_module_keeps_the_promises_too(loss):
    cheap = [name for name in CHECKS if name not in ("compile", "half_precision", "oracle")]
    assert LOSSES[loss].module is not None
    report = check_loss(LOSSES[loss].module(), only=cheap)
    assert report.passed, f"\n{report}"


# one of every family, because a build takes many seconds
ONE_OF_EACH_FAMILY = {info.family: name for name, info in reversed(LOSSES.items())}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("loss", ONE_OF_EACH_FAMILY.values(), ids=ONE_OF_EACH_FAMILY)
def test_inductor_builds_the_loss_and_agrees(loss, tmp_path, monkeypatch):
    need("compiler")
    if not LOSSES[loss].compile:
        pytest.fail(f"{loss} cannot be compiled; choose another of its family")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 8, 8, generator=generator)
    target = torch.randint(0, 2, (2, 8, 8), generator=generator)
    weight = torch.rand(2, 8, 8, generator=generator)
    function = LOSSES[loss].function
    torch._dynamo.reset()
    found = []
    for call in (function, torch.compile(function, fullgraph=True)):
        z = logits.clone().requires_grad_()
        value = call(z, target, pixel_weight=weight)
        value.backward()
        found.append((value.detach(), z.grad))
    torch._dynamo.reset()
    (value, gradient), (compiled, compiled_gradient) = found
    torch.testing.assert_close(compiled, value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(compiled_gradient, gradient, rtol=1e-4, atol=1e-7)
