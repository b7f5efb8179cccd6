"""Odd tasks through `nnref.diagnose`: an answer or a sentence, and no line of nnref is blamed."""

import pytest

from benchmarks.odd_tasks import ALL, answer, drawn

# What is said of each: words of the report, or of what is refused.
TOLD = {
    "complex inputs": "of complex64, of which there is no gradient",
    "no columns": "no row holds a number",
    "nothing to predict": "no row holds a number",
    "no parameters": "there is nothing to train",
    "whole numbers among the parameters": "one of int32",
    "a key among the parameters": "one of key<fry>",
    "a flag among the parameters": "one of bool",
    "a leaked tracer": "odd_tasks.py",
    "NumPy inside": "TracerArrayConversionError",
    "a branch on values": "TracerBoolConversionError",
    "a complex loss": "a loss of floating-point numbers",
    "no loss": "the loss gave a NoneType",
    "a loss of text": "the loss gave a str",
    "a loss that raises": "no_such_word",
    "a penalty of None": "penalty(params) gave a NoneType",
    "a penalty that is text": "penalty(params) gave a str",
    "a complex penalty": "gave complex64 of shape ()",
    "a state of text": "the optimizer's state holds a str",
    "an empty history": "it is empty",
    # These are trained for a step.
    "boolean inputs": "Nothing was found",
    "a word beyond the table": "indices into table lie outside",
    "labels of -1, left out": "Nothing was found",
    "outputs by name": "Nothing was found",
    "sharpness-aware steps": "Nothing was found",
    "sharpness-aware steps inside": "Nothing was found",
    "predictions of text": "could not convert",
}


@pytest.mark.parametrize("name", TOLD)
def test_of_an_odd_task_a_sentence_is_said(name):
    (kind,) = [kind for kind, table in ALL.items() if name in table]
    said, own = answer([(kind, name)])
    assert not own
    assert TOLD[name] in " ".join(said.split())


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("a loss that raises", "predictions of nothing"), "no_such_word"),
        (("boolean targets", "Prodigy"), "numerical_instability"),
        pytest.param(
            ("targets without a second axis", "complex outputs"),
            "loss_broadcast",
            marks=[
                pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning"),
                pytest.mark.filterwarnings("ignore:Casting from complex:DeprecationWarning"),
            ],
        ),
        (("one row twice", "a network that prints"), "every row has the same target"),
    ],
)
def test_of_two_oddities_at_once_a_sentence_is_said(names, told):
    kinds = [next(kind for kind, table in ALL.items() if name in table) for name in names]
    said, own = answer(list(zip(kinds, names, strict=True)))
    assert not own
    assert told in said


def test_draws_are_the_same_for_a_seed_and_of_different_kinds():
    assert drawn(3) == drawn(3)
    draws = [drawn(seed) for seed in range(20)]
    assert len({tuple(names) for names in draws}) > 15
    assert all(len({kind for kind, _ in names}) == len(names) for names in draws)
