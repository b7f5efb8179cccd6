"""The table of layers, held against formulas."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from nnref.experiment.experiment import Experiment
from nnref.parts.models.layers import Affine, Hidden
from nnref.report.terminal.layers import layers_table, rows_of


def experiment(model, data="digits", loss="softmax_cross_entropy", **regularization):
    return Experiment(
        data=data,
        model=model,
        loss=loss,
        optimizer={"name": "sgd", "learning_rate": 0.1},
        regularization=regularization,
        batch_size=32,
        epochs=1,
    )


def cells(table):
    return [line.split() for line in table.splitlines()[1:]]


IMAGES = {"name": "digits", "images": True}


def test_dense_layers_have_two_flops_for_each_weight():
    table = layers_table(experiment({"name": "mlp", "hidden": [4, 5]}, normalization="batch"))
    assert cells(table) == [
        ["layers.0", "Hidden", "4", str(64 * 4 + 2 * 4), str(2 * 64 * 4)],
        ["layers.1", "Hidden", "5", str(4 * 5 + 2 * 5), str(2 * 4 * 5)],
        ["layers.2", "Dense", "10", str(6 * 10), str(2 * 5 * 10)],
        ["in", "all", "10", str(264 + 30 + 60), str(2 * (256 + 20 + 50))],
    ]
    assert table.splitlines()[0].split() == ["layer", "kind", "output", "parameters", "FLOPs"]


def test_convolutions_have_two_flops_for_each_weight_and_place():
    model = {"name": "convnet", "channels": [4, 6], "kernel": [3, 5], "stride": [1, 2], "pool": 2}
    first, second, last, _ = cells(layers_table(experiment(model, IMAGES)))
    assert first[2:7] == ["4", "x", "4", "x", "4"]
    assert first[7:] == [str((9 + 1) * 4), f"{2 * 64 * 9 * 4:,}"]
    assert second[2:7] == ["1", "x", "1", "x", "6"]
    assert second[7:] == [str((25 * 4 + 1) * 6), f"{2 * 4 * 25 * 4 * 6:,}"]
    assert last[2:] == ["10", "70", "120"]


def test_blocks_count_what_is_within_them():
    model = {"name": "resnet", "widths": [8], "blocks": 1}
    rows = {row[0]: row for row in cells(layers_table(experiment(model, dropout=0.5)))}
    assert rows["blocks.0"][2:] == ["8", str(2 * 9 * 8), str(2 * 2 * 8 * 8)]


def test_the_steps_of_a_loop_are_all_counted():
    model = {"name": "recurrent", "cell": "rnn", "units": 4}
    data = {"name": "adding", "steps": 7}
    table = cells(layers_table(experiment(model, data, "squared_error")))
    assert table[0][-2:] == [str(2 * 4 + 4 * 4 + 4), str(2 * 7 * (2 * 4 + 4 * 4))]
    assert table[0][2:-2] == ["4,", "7", "x", "4"], "the last h, and that of each step"


class Loops(nnx.Module):
    """A loop of five turns in one of seven."""

    def __init__(self, rngs):
        self.layer = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x):
        def often(step, times):
            return lambda h: jax.lax.scan(lambda h, _: (step(h), None), h, length=times)[0]

        return often(often(self.layer, 5), 7)(x)


def test_loops_within_loops_are_counted_as_often_as_they_run():
    layer, _ = rows_of(Loops(nnx.Rngs(0)), (4,), jnp.float32)
    assert layer == ("layer", "Linear", ((4,),), 20, 7 * 5 * 2 * 16)


class Tied(nnx.Module):
    """A table of vectors beside a layer that is called twice."""

    def __init__(self, rngs):
        self.table = nnx.Param(jnp.ones((9, 4)))
        self.layer = nnx.Linear(4, 4, rngs=rngs)
        self.unused = nnx.Linear(2, 2, rngs=rngs)

    def __call__(self, x):
        return self.layer(self.layer(self.table[...][x])) @ self.table[...].T


def test_what_a_model_does_itself_has_a_row_of_its_own():
    model = Tied(nnx.Rngs(0))
    layer, beside, in_all = rows_of(model, (3,), jnp.int32)
    assert layer == ("layer", "Linear", ((3, 4),), 20, 2 * 2 * 3 * 16)
    assert beside == ("beside them", "Tied", ((3, 9),), 36 + 6, 2 * 3 * 4 * 9)
    assert in_all == ("in all", "", ((3, 9),), 62, 2 * 3 * (2 * 16 + 36))


class Streams(nnx.Module):
    """A model whose batches have a fixed number of examples."""

    streams = 5

    def __init__(self, rngs):
        self.layer = nnx.Linear(4, 3, rngs=rngs)
        self.deterministic = False

    def __call__(self, x):
        assert len(x) == 5
        assert self.deterministic, "as in evaluation"
        return self.layer(x)


def test_figures_are_of_one_example_where_batches_have_a_fixed_number():
    for row in rows_of(Streams(nnx.Rngs(0)), (4,), jnp.float32):
        assert row[2:] == (((3,),), 15, 24)


@pytest.mark.parametrize("fails", [False, True])
def test_layers_are_afterwards_what_they_were(fails):
    before = [vars(kind)["__call__"] for kind in (Affine, Hidden)]
    model = Streams(nnx.Rngs(0))
    model.layer = nnx.Linear(3 if fails else 4, 3, rngs=nnx.Rngs(0))
    linear = vars(nnx.Linear)["__call__"]
    if fails:
        with pytest.raises(TypeError):
            rows_of(model, (4,), jnp.float32)
    else:
        rows_of(model, (4,), jnp.float32)
    layers_table(experiment({"name": "mlp", "hidden": [4]}))
    assert [vars(kind)["__call__"] for kind in (Affine, Hidden)] == before
    assert vars(nnx.Linear)["__call__"] is linear


def test_nothing_is_computed():
    model = nnx.eval_shape(lambda: nnx.Linear(10**6, 10**6, rngs=nnx.Rngs(0)))
    _, in_all = rows_of(model, (10**6,), jnp.float32)
    assert in_all.parameters == 10**12 + 10**6
