"""Compiled to machine code, a loss of every family gives what it gives in eager mode.

The battery compiles every loss with the quick backend `aot_eager`, which proves that it is one
graph. The code that users run comes from inductor, whose builds are slow: once per family.
"""

from __future__ import annotations

import pytest
import torch
from system_needs import need

from seglosses_nb import LOSSES
from seglosses_nb.registry import FAMILIES, LossInfo

COMPILED = [
    next(info for info in LOSSES.values() if info.family == family and info.compile)
    for family in FAMILIES
    if any(info.family == family and info.compile for info in LOSSES.values())
]


@pytest.fixture
def compiler(tmp_path, monkeypatch) -> None:
    """A C++ compiler, and an empty cache, so that the code is built now and not found."""
    need("compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()


# inductor's own use of what torch itself has deprecated
@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.script_method` is deprecated:DeprecationWarning")
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("info", COMPILED, ids=lambda info: info.name)
def test_machine_code_agrees_with_eager_mode(info: LossInfo) -> None:
    torch.manual_seed(0)
    channels = 1 if "binary" in info.targets else 3
    target = torch.randint(0, max(channels, 2), (2, 16, 16))
    start = 3 * torch.randn(2, channels, 16, 16)

    def value_and_gradient(function) -> tuple[torch.Tensor, torch.Tensor]:
        logits = start.clone().requires_grad_()
        value = function(logits, target)
        (slope,) = torch.autograd.grad(value, logits)
        return value.detach(), slope

    compiled = torch.compile(info.function, fullgraph=True, backend="inductor")
    torch.testing.assert_close(value_and_gradient(compiled), value_and_gradient(info.function))
