"""Which way an evaluation is better, and how much is a cure."""

import numpy as np
import pytest

from nnref.diagnosis.one_edit.scale import Scale, direction, scale_of


@pytest.mark.parametrize(
    ("text", "larger"),
    [
        ("accuracy", True),
        ("val_acc", True),
        ("meanReturn", True),
        ("recall@20", True),
        ("rmse", False),
        ("valid_loss", False),
        ("relative L2 error", False),
        ("error of the returns", None),  # it says both
        ("value", None),
        ("share of the variance that is explained", True),
        ("the error, where larger is better", True),
        ("embracing", None),
    ],
)
def test_a_name_says_which_way_is_better(text, larger):
    assert direction(text) is larger


def share_of_right_answers(state):
    answers, labels = state
    right = answers.argmax(1) == labels
    return float(right.mean())


def counted_one_by_one(state):
    right = total = 0
    for answer, label in zip(*state, strict=True):
        right += (answer.argmax() == label).sum()
        total += 1
    return float(right / total)


def density(state):
    """Held-out negative log likelihood per channel, in nats."""
    return float(state[0])


def what_is_left(state):
    """Return what is left of it."""
    return state[0]


def distance_of_answers(state):
    return float(np.abs(state[0] - state[1]).mean())


def squared(state):
    gap = (state[0] - state[1]) ** 2
    return gap.sum()


def explained(state):
    answers, y = state
    left = ((answers - y) ** 2).sum()
    return float(1.0 - left / ((y - y.mean()) ** 2).sum())


def of_the_rest(state):
    """R2 on the rest of the rows: greater is better, 1 is best."""
    return state


def earned(state):
    """Mean return of 100 ticks (greater is better; about -1 is best, 0.1 is best of all)."""
    return state


def turned_round(state):
    return -((state[0] - state[1]) ** 2).mean()


def said(state):
    """How near the states come to the best
    one; Lower is better.
    """
    return state


def number(state):
    return state


@pytest.mark.parametrize(
    ("evaluate", "scores", "expected"),
    [
        (share_of_right_answers, {"": 0.3}, Scale("", True, -0.3, share=True)),
        (distance_of_answers, {"": 0.3}, Scale("", False, 0.3)),
        (counted_one_by_one, {"": 0.3}, Scale("", True, -0.3, share=True)),
        (density, {"": 3.0}, Scale("", False, 3.0, bounded=False)),
        (what_is_left, {"": 3.0}, None),
        (squared, {"": 0.3}, Scale("", False, 0.3)),
        (explained, {"": 0.3}, Scale("", True, -0.3, share=True)),
        (of_the_rest, {"": -200.0}, Scale("", True, 200.0, share=True)),
        (earned, {"": -3.4}, Scale("", True, 3.4)),
        (turned_round, {"": -0.3}, Scale("", True, 0.3)),
        (said, {"": 0.3}, Scale("", False, 0.3)),
        (number, {"": 0.3}, None),
        (number, {"steps": 4, "mae": 0.3}, Scale("mae", False, 0.3)),
        (share_of_right_answers, {"one": 0.3, "two": 0.2}, None),  # which of them is counted?
    ],
)
def test_what_an_evaluation_returns_says_it_too(evaluate, scores, expected):
    assert scale_of(evaluate, scores) == expected


ERROR, ACCURACY = Scale("e", False, 2.0), Scale("a", True, -0.1)
RETURN = Scale("r", True, 20.0)  # a return of -20 at first


@pytest.mark.parametrize(
    ("scale", "without", "value", "cures"),
    [
        (ERROR, 1.5, 0.5, True),
        (ERROR, 1.5, 0.9, False),  # not half
        (ERROR, 0.15, 0.05, False),  # it had learned
        (ERROR, 0.3, 0.14, False),  # half, and little
        (ACCURACY, 0.5, 0.8, True),
        (ACCURACY, 0.5, 0.7, False),
        (ACCURACY, 0.15, 0.4, True),  # three tenths gained, and a twentieth without
        (ACCURACY, 0.95, 0.99, False),
        (RETURN, -18.0, -10.0, True),
        (RETURN, -18.0, -17.0, False),
        (RETURN, -88.0, -10.0, True),
        (RETURN, -88.0, -20.0, False),  # as bad as before the first step: nothing was trained
        (Scale("r2", True, 3.4, share=True), -88.0, -3.4, False),
        (Scale("r2", True, 3.4, share=True), -88.0, -1.4, True),
        (RETURN, -5.0, 5.0, False),  # it had learned more than the edit adds
    ],
)
def test_what_no_luck_explains(scale, without, value, cures):
    sign = -1 if scale.larger_is_better else 1
    assert scale.cures(sign * without, sign * value) is cures


def test_a_share_is_1_at_best_however_it_begins():
    assert Scale("r2", True, 200.0, share=True).best == -1
    assert Scale("score", True, 200.0).best == -np.inf
    assert Scale("score", True, -0.3).best == -1


def test_the_error_of_no_number_is_infinite():
    assert ACCURACY.error({"a": np.nan}) == np.inf
    assert ACCURACY.error({}) == np.inf
    assert ACCURACY.value(ACCURACY.error({"a": 0.25})) == 0.25
    assert [s.best for s in (ERROR, ACCURACY, RETURN)] == [0, -1, -np.inf]
    assert ERROR._replace(bounded=False).best == -np.inf


def test_a_small_gain_is_worth_more_steps():
    assert ACCURACY.improves(-0.1, -0.15)
    assert not ACCURACY.improves(-0.1, -0.11)
