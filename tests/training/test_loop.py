"""The loop over epochs: chunks, resuming, many runs in one program, and runs that end early."""

from functools import partial

import jax
import numpy as np
import pytest
from fits import built, fitted, plan_of

from nnref.errors import UserError
from nnref.training import loop, probing, train


@pytest.fixture(scope="module")
def small():
    return built()


def test_a_vmapped_seed_equals_that_seed_alone(small):
    experiment, task, setup = small
    together, _ = fitted(experiment, task, setup, (3, 4, 5))
    alone, _ = fitted(experiment, task, setup, (4,))
    for name in together:
        # XLA may round a product of many runs in another order than that of one.
        np.testing.assert_allclose(together[name][:, 1], alone[name][:, 0], rtol=1e-5)
    assert not np.allclose(together["train_loss"][:, 0], together["train_loss"][:, 1])


def test_the_same_seed_twice_gives_the_same_bits(small):
    first, second = (fitted(*small, (0, 1))[0] for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_chunks_of_any_size_give_the_same_bits(small, monkeypatch):
    whole, chunks = fitted(*small, (0, 1))
    monkeypatch.setattr(loop, "ROWS_BEFORE_TIMING", 0)
    monkeypatch.setattr(loop, "SECONDS_PER_CHUNK", 0.0)  # one epoch a chunk
    single, ones = fitted(*small, (0, 1))
    assert len(ones) == small[0].epochs + 1 > len(chunks)
    for name in whole:
        np.testing.assert_array_equal(whole[name], single[name])


def test_resuming_gives_the_same_bits(small, monkeypatch):
    whole, _ = fitted(*small, (0, 1))
    monkeypatch.setattr(loop, "ROWS_BEFORE_TIMING", 0)
    monkeypatch.setattr(loop, "SECONDS_PER_CHUNK", 0.0)
    first, chunks = fitted(*small, (0, 1), stop_after=3)
    rest, _ = fitted(*small, (0, 1), resume=(3, chunks[-1].states))
    for name in whole:
        np.testing.assert_array_equal(whole[name], np.concatenate([first[name], rest[name]]))


def programs():
    """How many programs are compiled for chunks of epochs."""
    return sum(loop.chunk_program(tiny)._cache_size() for tiny in (False, True))


def test_the_learning_rate_is_no_structure():
    """Another rate, momentum or seed runs the program that is there."""
    one = built(optimizer={"name": "sgd", "learning_rate": 0.1, "momentum": 0.9}, epochs=2)
    other = built(optimizer={"name": "sgd", "learning_rate": 0.2, "momentum": 0.5}, epochs=2)
    slow, _ = fitted(*one)
    compiled = programs()
    fast, _ = fitted(*other)
    assert programs() == compiled
    assert not np.allclose(slow["train_loss"], fast["train_loss"])


# --- ends ---------------------------------------------------------------------------------------


def test_a_run_that_diverges_ends_where_its_loss_does():
    experiment, task, setup = built(
        data={"name": "spirals", "points": 23, "valid": 0.3, "test": 0.1},
        loss="squared_error",
        optimizer={"name": "sgd", "learning_rate": 60.0},
        epochs=50,
    )
    _, chunks = fitted(experiment, task, setup)
    active = np.concatenate([chunk.active for chunk in chunks])[:, 0]
    bad = np.concatenate([chunk.bad_step for chunk in chunks])[:, 0]
    last = np.count_nonzero(active) - 1
    assert 0 < last < 50
    assert active[: last + 1].all()
    assert not bad[:last].any()
    # The step at which a plain loop sees it first.
    functions, optimizer = setup(experiment.hyperparameters)
    data = {"train": task.train, "valid": task.valid}
    state, _ = train.start(setup, plan_of(experiment), experiment.hyperparameters, 0, data)
    x, y = task.train
    step = jax.jit(partial(train.train_step, functions, optimizer))
    seen = None
    for epoch in range(1, last + 1):
        key = jax.random.fold_in(state.key, epoch)
        order = np.asarray(jax.random.permutation(key, len(x)))
        for number, first in enumerate(range(0, len(x), 8), 1):
            rows = order[first : first + 8]
            state, sums = step(state, x[rows], y[rows], jax.random.fold_in(key, number))
            if seen is None and not np.isfinite(sums["loss"]):
                seen = (epoch, number)
    assert seen == (last, int(bad[last]))


def test_a_run_that_stops_keeps_its_state_while_others_go_on():
    stop = {"metric": "train_loss", "at_most": 0.9}
    changes = {"optimizer": {"name": "adam", "learning_rate": 0.05}, "epochs": 40}
    experiment, task, setup = built(stop=stop, **changes)
    _, chunks = fitted(experiment, task, setup, range(6))
    active = np.concatenate([chunk.active for chunk in chunks])
    ends = active.sum(axis=0) - 1
    assert len(set(ends)) > 1, "some must stop before others for this test to say anything"
    first = int(np.argmin(ends))
    shorter = built(**changes | {"epochs": int(ends[first])})
    _, until = fitted(*shorter, range(6))
    for kept, then in zip(
        jax.tree.leaves(chunks[-1].states.params),
        jax.tree.leaves(until[-1].states.params),
        strict=True,
    ):
        np.testing.assert_allclose(kept[first], then[first], rtol=1e-4, atol=1e-6)


def test_the_states_of_runs_that_stop_at_the_end_of_a_chunk_are_still_there():
    stop = {"metric": "train_loss", "at_most": 100.0}  # after the first epoch, the first chunk
    _, chunks = fitted(*built(stop=stop))
    assert [len(chunk.active) for chunk in chunks] == [1, 1]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(chunks[-1].states.params))


def test_runs_that_do_not_fit_are_refused_with_the_figure_and_what_to_give(small, monkeypatch):
    monkeypatch.setattr(loop, "memory", lambda: 1e3)
    with pytest.raises(UserError, match=r"for 2 run\(s\) of [\d,]+ numbers each.*fewer seeds"):
        fitted(*small, (0, 1))


def test_the_shapes_of_a_start_are_traced_once_for_a_structure(small, monkeypatch):
    fitted(*small, (0, 1))
    monkeypatch.setattr(jax, "eval_shape", None)
    experiment, task, setup = small
    arguments = setup, plan_of(experiment), experiment.hyperparameters
    data = jax.device_put(task.arrays | probing.probe_data(plan_of(experiment), task))
    assert len(loop.shapes_of_start(*arguments, 2, data).running) == 2
    with pytest.raises(TypeError):
        loop.shapes_of_start(*arguments, 17, data)  # other shapes are traced
