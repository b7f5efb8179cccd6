"""Rows that are trees of arrays lie in one array, and come back as they were."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnref import UserError
from nnref.data.trees import layout_of, pair_of, tree_of

TOKENS = np.arange(12, dtype=np.int32).reshape(4, 3)
MASK = TOKENS > 4
IMAGE = np.random.default_rng(0).normal(size=(4, 2, 2, 1)).astype(np.float32)


@pytest.mark.parametrize(
    "rows",
    [
        {"tokens": TOKENS, "mask": MASK},
        {"image": IMAGE, "tokens": TOKENS, "deep": {"mask": MASK}},
        (IMAGE, TOKENS[:, 0]),
        {"image": IMAGE},
    ],
    ids=["whole", "mixed", "tuple", "one"],
)
def test_what_is_packed_comes_back(rows):
    layout = layout_of(rows, "x")
    packed = layout.pack(rows, "x")
    assert len(packed) == 4
    back = jax.jit(layout.unpack)(jnp.asarray(packed))
    assert jax.tree.structure(back) == jax.tree.structure(rows)
    for old, new in zip(jax.tree.leaves(rows), jax.tree.leaves(back), strict=True):
        assert new.dtype == old.dtype
        np.testing.assert_array_equal(new, old)


def test_one_array_is_no_tree():
    assert layout_of(IMAGE, "x") is None


def test_whole_numbers_alone_take_no_fractions():
    layout = layout_of({"tokens": TOKENS, "mask": MASK}, "x")
    with pytest.raises(TypeError, match="no fractions"):
        layout.unpack(jnp.ones((4, 6)))


def test_whole_numbers_beside_fractions_must_be_exact_among_them():
    rows = {"image": IMAGE, "number": np.array([1, 2, 3, 2**24 + 1])}
    with pytest.raises(UserError, match="above 2\\^24"):
        layout_of(rows, "x").pack(rows, "x")
    rows["number"][-1] = 2**24
    layout_of(rows, "x").pack(rows, "x")


def test_other_rows_must_lie_alike():
    layout = layout_of({"a": TOKENS}, "x of train")
    with pytest.raises(UserError, match=r"x of valid is a \(rows, 2\); that of train is a"):
        layout.pack({"a": TOKENS[:, :2]}, "x of valid")
    with pytest.raises(UserError, match="x of valid is one array"):
        layout.pack(TOKENS, "x of valid")


def test_a_list_is_rows_unless_each_member_has_all_of_them():
    assert tree_of([[1.0, 2.0], [3.0, 4.0]], "x").shape == (2, 2)
    assert tree_of([TOKENS[0], TOKENS[1]], "x", 2).shape == (2, 3)
    several = tree_of([TOKENS, IMAGE], "x", 4)
    assert isinstance(several, tuple)
    assert several[1] is IMAGE


def test_rows_of_different_lengths_want_a_mask():
    with pytest.raises(UserError, match="fill them up to the longest"):
        tree_of([[1, 2], [3]], "x of train")


def test_arrays_of_other_lengths_are_refused():
    with pytest.raises(UserError, match="rows come first in each"):
        layout_of({"a": TOKENS, "b": IMAGE[:3]}, "x")


def test_without_targets_these_are_the_inputs():
    x, y = pair_of("train", (IMAGE, None))
    assert x is y is IMAGE
    x, y = pair_of("train", {"image": IMAGE}, whole=True)
    assert x["image"] is IMAGE
    assert y.shape == (4,)


def test_columns_are_named_by_their_array():
    assert layout_of({"b": TOKENS, "a": MASK[:, 0]}, "x").columns == [
        "a[0]",
        "b[0]",
        "b[1]",
        "b[2]",
    ]
