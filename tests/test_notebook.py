"""What chapters show besides figures."""

import pytest

from seglosses_nb import binary_cross_entropy, dice_loss
from seglosses_nb.lab.notebook import agreement, show_source, table


def undocumented(x):
    return x + 1


@pytest.mark.parametrize("function", [binary_cross_entropy, dice_loss])
def test_source_is_the_body_without_the_docstring(function):
    shown = show_source(function).data
    assert shown.startswith("```python\n")
    assert shown.endswith("\n```")
    assert f'"{function.__name__}"' in shown
    assert ".. math::" not in shown
    assert "def " not in shown
    compile(shown[10:-4].replace("return ", "value = "), "shown", "exec")


def test_source_with_the_signature():
    shown = show_source(dice_loss, signature=True).data
    assert "def dice_loss(" in shown
    assert "smooth: float = 1.0" in shown
    assert ".. math::" not in shown


def test_source_of_a_function_without_docstring():
    assert show_source(undocumented).data == "```python\nreturn x + 1\n```"


def test_agreement_shows_both_values_and_the_version():
    shown = agreement([("a sum", 1.0, 1.0 + 1e-9, "numpy")]).data
    assert "| a sum | 1.0000000 | 1.0000000 | -1.0e-09 | numpy " in shown


def test_agreement_raises_on_a_difference():
    with pytest.raises(AssertionError, match=r"a sum: ours is 1\.0, numpy gives 1\.1"):
        agreement([("a sum", 1.0, 1.1, "numpy")])


def test_agreement_raises_on_nan():
    with pytest.raises(AssertionError, match="nan"):
        agreement([("a sum", 1.0, float("nan"), "numpy")])


def test_a_disagreement_may_be_shown():
    assert "+9.0e-01" in agreement([("a", 1.0, 0.1, "numpy")], tolerance=None).data


def test_table_aligns_numbers_right():
    shown = table(("name", "n"), [("one", 1), ("two", 2)]).data
    assert shown.splitlines() == ["| name | n |", "| :--- | ---: |", "| one | 1 |", "| two | 2 |"]
