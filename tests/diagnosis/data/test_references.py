"""What simple models learn of the same rows."""

import numpy as np
import pytest

from nnref.diagnosis.data.references import (
    COUNTS,
    LAST_VALUE,
    around_pixels,
    at_pixels,
    balanced,
    change_to_come,
    last_token,
    last_value,
    least_squares,
    lookup,
    references,
    scales,
    standardized,
    through,
)
from nnref.diagnosis.data.targets import Target, target_of

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(300, 4)).astype(np.float32)


def test_references_find_what_is_there_and_nothing_where_nothing_is():
    line = references(X, target_of(X @ np.array([[1.0], [2], [0], [-1]]), "regression"))
    assert line.best[1] > 0.99
    ring = (np.abs(X[:, :1]) > 0.6).astype(float)
    curved = references(X, target_of(ring, "binary"))
    assert curved.skills["linear"] < 0.2 < 0.6 < curved.best[1]
    noise = references(X, target_of(RANDOM.normal(size=(300, 1)), "regression"), shuffles=2)
    assert noise.best[1] < 0.1
    assert max(noise.shuffled.values()) < 0.1


def test_steps_of_sequences_are_told_from_those_before_them():
    """A chain whose next token is the last one plus 1 or plus 2, by the third from the end."""
    text = [0, 1, 2]
    while len(text) < 2000:
        text.append((text[-1] + 1 + text[-3] % 2) % 5)
    x = np.array(text).reshape(100, 20)
    following = np.roll(text, -1).reshape(100, 20)
    told = references(x, target_of(following, "places"))
    assert told.best[1] > 0.9
    one_hot = np.eye(5)[following]
    assert references(x, target_of(one_hot, "places")).skills == told.skills
    drawn = RANDOM.permutation(following.ravel()).reshape(100, 20)
    assert references(x, target_of(drawn, "places")).best[1] < 0.1
    # Inputs that do not go along with the targets are seen whole, with the place.
    seen = references(x[:, :3], target_of(np.tile([0, 1, 1, 2], (100, 1)), "places"))
    assert seen.best[1] > 0.9


def test_tokens_are_counted_and_numbers_are_not():
    """Words whose numbers say nothing, three of fifty of them of one class."""
    words = RANDOM.integers(0, 50, (400, 6))
    y = np.isin(words, [7, 23, 41]).any(1).astype(int)
    found = references(words, target_of(y, "binary"))
    assert found.skills[COUNTS] > 0.9 > 0.3 > found.skills["linear"]
    assert COUNTS not in references(words.astype(np.float32), target_of(y, "binary")).skills
    numbered = np.arange(800).reshape(400, 2)  # each stands once
    assert COUNTS not in references(numbered, target_of(y, "binary")).skills


def test_few_rows_are_held_against_a_table_of_them():
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
    xor = target_of(np.array([[0], [1], [1], [0]]), "binary")
    assert references(corners, xor).best == ("lookup table", 1.0)
    assert lookup(np.repeat(corners[:2], 2, 0), xor) == 0  # equal rows, unequal targets


def test_standardizing_is_by_column_and_of_images_as_a_whole():
    table = X * [1, 10, 100, 0] + 5
    told = scales(standardized(table))
    np.testing.assert_allclose(told.mean, 0, atol=1e-4)  # single precision
    np.testing.assert_allclose(told.deviation[:3], 1, rtol=1e-4)
    images = standardized(RANDOM.uniform(0, 255, (20, 4, 4, 1)))
    assert abs(images.mean()) < 1e-5
    assert images.std() == pytest.approx(1, rel=1e-4)


def test_least_squares_is_that_of_the_normal_equations():
    x, y = RANDOM.normal(size=(50, 6)), RANDOM.normal(size=(50, 2))
    weight = RANDOM.uniform(0.5, 2, 50)
    told = least_squares(x, y, weight)(x)
    design = np.c_[x, np.ones(50)]
    penalty = 0.03 * weight.sum() * np.diag([1] * 6 + [0])
    w = np.linalg.solve(
        design.T @ (weight[:, None] * design) + penalty, design.T @ (weight[:, None] * y)
    )
    np.testing.assert_allclose(told, design @ w, rtol=1e-9, atol=1e-9)
    wide = np.c_[x, x, x, x, x, x, x, x, x, x]  # more columns than rows: the other equation
    longer = np.r_[wide, wide]
    np.testing.assert_allclose(
        least_squares(wide, y, weight)(wide),
        least_squares(longer, np.r_[y, y], np.r_[weight, weight])(wide),
        rtol=1e-6,
        atol=1e-6,
    )


@pytest.mark.parametrize("space", [(30,), (8, 8), (4, 4, 4)])
def test_what_stands_around_a_pixel_tells_its_class(space):
    mask = (RANDOM.random((200, *space)) < 0.03).astype(int)
    x = RANDOM.normal(size=(200, *space, 2))
    shown = x + 3 * mask[..., None]
    assert around_pixels(shown, mask) > 0.7
    assert around_pixels(np.moveaxis(shown, -1, 1), mask) > 0.7
    assert around_pixels(shown[..., 0], mask) > 0.7
    assert around_pixels(x, mask) < 0.2
    assert around_pixels(x.reshape(200, -1, 4), mask) == 0


@pytest.mark.parametrize("channels", [(), (2,)])
def test_pixels_of_a_mask_are_rows_of_what_stands_around_them(channels):
    x = np.arange(4 * 7 * 8 * 2, dtype=np.float32).reshape(4, 7, 8, 2)[..., : len(channels) + 1]
    x = x.reshape(4, 7, 8, *channels)
    mask = (x.reshape(4, 7, 8, -1)[..., 0] % 3 == 0).astype(int)
    around, target = at_pixels(x, Target("multilabel", mask.reshape(4, -1), 2))
    width = int(np.prod(channels))
    assert around.shape == (4 * 7 * 8, 25 * width)
    assert target.kind == "binary"
    middle = around[:, 12 * width]
    np.testing.assert_array_equal(middle % 3 == 0, target.answers)
    assert at_pixels(x[:, :4], Target("multilabel", mask[:, :4].reshape(4, -1), 2)) is None
    assert at_pixels(x, Target("multilabel", mask[:, 0], 2)) is None  # labels of whole images


def test_classes_below_0_ask_for_nothing():
    classes = (X[:, 0] > 0).astype(int)
    masked = np.where(np.arange(300) % 3 == 0, -1, classes)
    told = references(X, target_of(masked, "multiclass"))
    kept = references(X[masked >= 0], target_of(masked[masked >= 0], "multiclass"))
    assert told.rows == 200
    assert told.skills["linear"] == pytest.approx(kept.skills["linear"], abs=0.1)
    assert lookup(X[:60], target_of(masked[:60], "multiclass")) == 1


def windows(changes):
    return np.lib.stride_tricks.sliding_window_view(np.cumsum(changes), 11)


def test_the_last_value_of_a_series_is_a_reference():
    drawn = windows(RANDOM.normal(size=600))
    x, y = drawn[:, :-1], drawn[:, -1:]
    target = target_of(y, "regression")
    error = ((y - x[:, -1:]) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert last_value(x, target.answers) == {LAST_VALUE: pytest.approx(1 - error)}
    assert last_value(x[..., None], target.answers) == last_value(x, target.answers)
    assert references(x, target).skills[LAST_VALUE] > 0.9
    assert last_value(x, np.c_[y, y]) == {}  # two answers to one value
    assert last_value(-x, target.answers) == {}  # worse than a constant
    assert last_value(x, (y > 0).astype(int), "binary") == {}
    assert change_to_come(x, y) < 0.05


def test_the_change_to_come_is_told_where_changes_turn_back():
    change = RANDOM.normal(size=900)
    for t in range(2, 900):
        change[t] -= 0.8 * change[t - 2]
    seen = windows(change)
    assert change_to_come(seen[:, :-1], seen[:, -1:]) > 0.4
    assert change_to_come(seen[:80, :-1], seen[:80, -1:]) == 0  # too few


def test_the_last_token_is_a_reference():
    x = RANDOM.integers(0, 9, (60, 12))
    drawn = RANDOM.integers(0, 9, x.shape)
    mostly = np.where(RANDOM.random(x.shape) < 0.7, (x * 4 + 1) % 9, drawn)
    target = target_of(np.where(RANDOM.random(x.shape) < 0.6, -1, mostly), "places")
    assert 0.6 < last_token(x, target)["the last token"] < 0.8
    assert references(x, target).skills["the last token"] == last_token(x, target)["the last token"]
    assert last_token(x, target_of(drawn, "places"))["the last token"] < 0.1
    assert last_token(x[:, :5], target) == {}
    assert last_token(x.astype(float), target) == {}


def test_a_rare_class_that_can_be_told_is_found_where_classes_weigh_the_same():
    """One in four beyond a bound is of the class: accuracy sees nothing, balanced accuracy does."""
    random = np.random.default_rng(0)
    x = random.normal(size=(1200, 3))
    rare = (x[:, 0] > 1) & (random.uniform(size=1200) < 0.25)
    target = Target("binary", rare.astype(int), 2)
    assert references(x, target).best[1] < 0.1
    assert balanced(x, target) > 0.5
    shuffled = target._replace(answers=random.permutation(target.answers))
    assert balanced(x, shuffled) < 0.2
    assert balanced(x, target._replace(answers=np.zeros(1200, int))) == 0


def test_places_are_told_apart_by_what_stands_before_them():
    random = np.random.default_rng(0)
    tokens = random.integers(0, 10, (100, 8))
    behind = np.pad(tokens[:, :-1] == 3, ((0, 0), (1, 0)))
    answers = np.where(tokens == 9, -1, behind & (random.uniform(size=tokens.shape) < 0.4))
    assert balanced(tokens, Target("places", answers.astype(int), 2)) > 0.5


def test_a_code_of_some_numbers_keeps_what_lies_in_as_many_directions():
    random = np.random.default_rng(0)
    flat = random.normal(size=(300, 2)) @ random.normal(size=(2, 9)) + 5
    x = flat.reshape(300, 3, 3)
    assert through(x, 2) == pytest.approx(1)
    assert 0.3 < through(x, 1) < 0.95
