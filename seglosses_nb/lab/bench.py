"""How fast is fast: every loss against torch's own cross-entropy on the same tensors.

Times drift with the machine, so nothing here is a time. A measurement is a ratio: forward and
backward of a loss, over the mean of the two runs of the baseline just before and after it. The
baseline is ``torch.nn.functional.binary_cross_entropy_with_logits`` or ``cross_entropy``. The same
is done for MONAI and kornia where they have the loss. One thread; the checks of the input are
part of what is measured.

``python -m seglosses_nb bench`` measures, prints the table and writes ``_build/bench.json`` and
``_build/bench.md``; ``--record`` also renews the record that the book shows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seglosses_nb import LOSSES

__all__ = ["CASES", "Case", "Measurement", "main", "measure", "record", "table"]

Loss = Callable[[Tensor, Tensor], Tensor]

# glibc hands fresh large blocks back to the system and faults them in again at each call until it
# has learnt better; with fixed thresholds every run meets the same allocator.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}


@dataclass(frozen=True)
class Case:
    """The tensors of one comparison."""

    name: str
    shape: tuple[int, ...]
    floating: bool = False
    void: bool = False

    @property
    def kind(self) -> str:
        """``"binary"`` or ``"multiclass"``."""
        return "binary" if self.shape[1] == 1 else "multiclass"

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Seeded logits that want a gradient, and a target: 20 % foreground, or even classes.

        Where ``void``, the first tenth of the rows carries the label 255.
        """
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(self.shape, generator=generator).requires_grad_()
        chance = torch.rand((self.shape[0], *self.shape[2:]), generator=generator)
        labels = (chance < 0.2).long() if self.kind == "binary" else (chance * self.shape[1]).long()
        if self.void:
            labels[:, : self.shape[2] // 10] = 255
        return logits, labels.unsqueeze(1).float() if self.floating else labels


CASES = (
    Case("binary 2-D, float target", (8, 1, 256, 256), floating=True),
    Case("binary 2-D, int64 labels", (8, 1, 256, 256)),
    Case("binary 2-D, int64, a tenth void", (8, 1, 256, 256), void=True),
    Case("multiclass 2-D", (4, 4, 256, 256)),
    Case("multiclass 2-D, a tenth void", (4, 4, 256, 256), void=True),
    Case("binary 3-D, float target", (2, 1, 64, 64, 64), floating=True),
)


@dataclass(frozen=True)
class Measurement:
    """One line of the table.

    Attributes:
        loss: our name of the loss.
        case: name of the case.
        library: who computed it.
        ratio: median over the runs of each run's median ratio to the baseline.
        low, high: the smallest and the largest run.
        memory: peak of the memory in use beyond the start, in multiples of the logits.
    """

    loss: str
    case: str
    library: str
    ratio: float
    low: float
    high: float
    memory: float


def baseline(case: Case) -> Loss:
    """Torch's own cross-entropy for the case."""
    return F.cross_entropy if case.kind == "multiclass" else F.binary_cross_entropy_with_logits


def peers(loss: str, case: Case) -> Mapping[str, Loss]:
    """Return the same loss in MONAI and kornia, where they have it for such tensors."""
    if case.void:  # neither library's Dice leaves pixels out
        return {}
    import kornia
    import monai

    found: dict[str, Loss] = {}
    if loss == "dice_loss" and case.kind == "binary":
        dice = monai.losses.DiceLoss(sigmoid=True)
        found["monai"] = lambda z, y: dice(z, y if y.ndim == z.ndim else y.unsqueeze(1))
    elif loss == "dice_loss":
        exclusive = monai.losses.DiceLoss(softmax=True, to_onehot_y=True)
        found["monai"] = lambda z, y: exclusive(z, y.unsqueeze(1))
        found["kornia"] = lambda z, y: kornia.losses.dice_loss(z, y, average="macro")
    return found


def measure(loss: Loss, case: Case, *, runs: int = 3, pairs: int = 40) -> tuple[list[float], float]:
    """Return every run's ratio to the baseline, and the peak memory in multiples of the logits.

    Args:
        loss: called as ``loss(logits, target)``.
        case: the tensors.
        runs: independent repetitions.
        pairs: interleaved pairs per run, of which the median counts.
    """
    logits, target = case.tensors()
    # The baseline gets what it likes best: whole labels, as floats where it wants them.
    reference = target.clamp_max(1) if case.kind == "binary" else target.remainder(logits.shape[1])
    if reference.ndim < logits.ndim and case.kind == "binary":
        reference = reference.unsqueeze(1).float()
    base = baseline(case)
    torch.lgamma(torch.ones(3))  # some builds run log1p ten times slower until the first lgamma

    def timed(function: Loss, truth: Tensor) -> float:
        start = time.perf_counter()
        function(logits, truth).backward()
        logits.grad = None
        return time.perf_counter() - start

    for _ in range(5):
        timed(loss, target)
        timed(base, reference)
    ratios = []
    for _ in range(runs):
        run = []
        for _ in range(pairs):
            before = timed(base, reference)
            ours = timed(loss, target)
            after = timed(base, reference)
            run.append(2 * ours / (before + after))
        ratios.append(statistics.median(run))
    return ratios, peak_memory(lambda: timed(loss, target)) / (logits.numel() * 4)


def peak_memory(call: Callable[[], Any]) -> int:
    """Return the peak, in bytes, of what torch holds during the call beyond what it held before."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        call()
    held = peak = 0
    events = profile.profiler.kineto_results.events()
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def measure_all(names: Sequence[str], *, runs: int, pairs: int) -> Iterator[Measurement]:
    """Measure every named loss, and its peers, on every case that it takes."""
    for name in names:
        info = LOSSES[name]
        for case in CASES:
            if case.kind not in info.targets or (
                info.space_dims is not None and len(case.shape) - 2 not in info.space_dims
            ):
                continue
            ours = partial(info.function, ignore_index=255) if case.void else info.function
            for library, loss in {"seglosses_nb": ours, **peers(name, case)}.items():
                ratios, memory = measure(loss, case, runs=runs, pairs=pairs)
                yield Measurement(
                    name,
                    case.name,
                    library,
                    statistics.median(ratios),
                    min(ratios),
                    max(ratios),
                    memory,
                )


# ------------------------------------------------------------------------------------- the record


def record(path: Path | None = None) -> dict[str, Any]:
    """Read a record: by default the one that is shipped with the package."""
    if path is None:
        return json.loads((files("seglosses_nb") / "lab" / "data" / "bench.json").read_text())
    return json.loads(path.read_text())


def table(found: Mapping[str, Any] | None = None, *, losses: Sequence[str] | None = None) -> str:
    """Return a record as a Markdown table: a line per loss and case, a column per library."""
    found = record() if found is None else found
    rows: dict[tuple[str, str], dict[str, Measurement]] = {}
    for entry in found["measurements"]:
        one = Measurement(**entry)
        if losses is None or one.loss in losses:
            rows.setdefault((one.loss, one.case), {})[one.library] = one
    libraries = ["seglosses_nb", "monai", "kornia"]
    lines = [
        "| loss | tensors | " + " | ".join(libraries) + " | memory |",
        "|:---|:---|" + "---:|" * (len(libraries) + 1),
    ]
    for (loss, case), by in rows.items():
        cells = [
            f"{by[name].ratio:.2f} ({by[name].low:.2f}–{by[name].high:.2f})" if name in by else ""
            for name in libraries
        ]
        memory = f"{by['seglosses_nb'].memory:.1f}" if "seglosses_nb" in by else ""
        lines.append(f"| `{loss}` | {case} | " + " | ".join(cells) + f" | {memory} |")
    return "\n".join(lines)


def environment() -> dict[str, str]:
    """Return what a figure must be quoted with."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.split(":", 1)[1].strip()
                break
    versions = {name: version(name) for name in ("torch", "monai", "kornia", "seglosses_nb")}
    return {"date": date.today().isoformat(), "processor": processor, "threads": "1", **versions}


# ------------------------------------------------------------------------------- the command line


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; 0 unless an argument is unusable: a slow loss breaks no build."""
    parser = argparse.ArgumentParser(prog="seglosses bench", description=__doc__.split("\n")[0])
    parser.add_argument("losses", nargs="*", metavar="LOSS", help="default: every loss")
    parser.add_argument("--runs", type=int, default=3, help="runs per figure (default: 3)")
    parser.add_argument("--pairs", type=int, default=40, help="pairs per run (default: 40)")
    parser.add_argument("--out", type=Path, default=Path("_build"), help="default: _build")
    parser.add_argument("--record", action="store_true", help="renew the record of the book")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    unknown = [name for name in options.losses if name not in LOSSES]
    if unknown or options.runs < 1 or options.pairs < 1:
        problem = f"no loss {unknown[0]!r}" if unknown else "--runs and --pairs must be at least 1"
        print(f"seglosses bench: {problem}; known: {', '.join(LOSSES)}", file=sys.stderr)
        return 2
    if any(os.environ.get(name) != value for name, value in _ALLOCATOR.items()):
        os.environ.update(_ALLOCATOR)  # read when a process starts: start again
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", "seglosses_nb", "bench", *given])
    torch.set_num_threads(1)
    measurements = []
    for one in measure_all(options.losses or list(LOSSES), runs=options.runs, pairs=options.pairs):
        print(
            f"{one.loss:24} {one.case:26} {one.library:13} {one.ratio:6.2f} × baseline "
            f"({one.low:.2f} to {one.high:.2f}), {one.memory:.1f} × the logits",
            flush=True,
        )
        measurements.append(asdict(one))
    found = {"environment": environment(), "measurements": measurements}
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1) + "\n"
    (options.out / "bench.json").write_text(text)
    (options.out / "bench.md").write_text(table(found) + "\n")
    if options.record:
        Path(str(files("seglosses_nb") / "lab" / "data" / "bench.json")).write_text(text)
    print(f"\n{table(found)}\n\nwritten to {options.out}/bench.json and bench.md")
    return 0
