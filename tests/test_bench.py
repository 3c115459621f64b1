"""The bench measures what it says, prints a table, and breaks nothing."""

import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from seglosses_nb import LOSSES
from seglosses_nb.lab import bench


def test_peak_memory_counts_what_is_held_at_once():
    def once():
        first = torch.empty(1000)
        second = torch.empty(500)
        del first
        return torch.empty(700) + second.sum()

    assert bench.peak_memory(once) >= 4 * 1500
    assert bench.peak_memory(once) < 4 * 2200


def test_the_baseline_is_as_fast_as_itself():
    case = bench.Case("small", (2, 1, 64, 64), floating=True)
    ratios, memory = bench.measure(F.binary_cross_entropy_with_logits, case, runs=1, pairs=30)
    assert 0.2 < ratios[0] < 5  # a sanity check of the arithmetic, not of the machine
    assert 0.9 < memory < 10


@pytest.mark.parametrize("case", bench.CASES, ids=lambda case: case.name)
def test_every_case_is_one_that_the_losses_take(case):
    logits, target = case.tensors()
    assert logits.shape == case.shape
    assert ((target == 255).any().item()) == case.void
    ignore = {"ignore_index": 255} if case.void else {}
    for info in LOSSES.values():
        if case.kind in info.targets:
            assert torch.isfinite(info.function(logits, target, **ignore))
    for loss in bench.peers("dice_loss", case).values():
        assert torch.isfinite(loss(logits, target))


def test_the_record_of_the_book_knows_every_loss_and_where_it_was_measured():
    found = bench.record()
    assert {entry["loss"] for entry in found["measurements"]} == set(LOSSES)
    assert {"date", "processor", "threads", "torch", "monai", "kornia"} <= set(found["environment"])
    table = bench.table(losses=["dice_loss"])
    assert table.count("\n") == 1 + len(bench.CASES)
    assert "`cross_entropy`" not in table


def test_the_command_writes_a_record_and_a_table(tmp_path):
    command = [sys.executable, "-m", "seglosses_nb", "bench", "dice_loss", "--runs", "1"]
    done = subprocess.run(
        [*command, "--pairs", "1", "--out", tmp_path], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {entry["case"] for entry in found["measurements"]} == {c.name for c in bench.CASES}
    assert (tmp_path / "bench.md").read_text().startswith("| loss | tensors |")
    assert "× baseline" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["dice_los"], "no loss 'dice_los'"), (["--runs", "0"], "must be at least 1")],
)
def test_unusable_arguments(arguments, message, capsys):
    assert bench.main(arguments) == 2
    assert message in capsys.readouterr().err
