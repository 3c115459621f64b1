"""Every example in a docstring of the package runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import seglosses_nb
from seglosses_nb import LOSSES

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(seglosses_nb.__path__, "seglosses_nb.")
    if not module.name.endswith(".__main__")
)
FINDER = doctest.DocTestFinder(exclude_empty=True)


def test_every_module_is_looked_at():
    files = {
        ".".join(("seglosses_nb", *path.relative_to(Path(folder)).with_suffix("").parts))
        for folder in seglosses_nb.__path__
        for path in Path(folder).rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py") and "template" not in path.parts
    }
    assert files <= set(MODULES)


@pytest.mark.parametrize("name", ["seglosses_nb", *MODULES])
def test_examples(name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(verbose=False)
    report: list[str] = []
    for test in FINDER.find(module, name):
        runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_an_example_that_computes(name):
    function = LOSSES[name].function
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(function))
    calls = [example for example in examples if f"{name}(" in example.source]
    assert calls
    assert all(any(char.isdigit() for char in example.want) for example in calls)
