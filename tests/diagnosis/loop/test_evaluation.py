"""What an evaluation does, and which statistics training measures."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training import train_state
from loops import BATCHES, TX, X, Y, begun, drawn, faults, first, network, plain, squares
from networks import line_of

import nnref


class Batched(nn.Module):
    """A network of Linen with batch normalization and dropout."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(16)(x))
        return nn.Dense(1)(nn.Dropout(0.2, deterministic=not train)(nn.relu(x)))


class State(train_state.TrainState):
    batch_stats: object


NET = Batched()


def linen(keeps=True, trains=True):
    """A step that keeps the new statistics, or not; in training mode, or not."""

    @jax.jit
    def step(state, batch, key):
        def loss(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            rngs = {"dropout": key}
            outputs, new = state.apply_fn(
                variables, batch[0], trains, mutable=["batch_stats"], rngs=rngs
            )
            return ((outputs - batch[1]) ** 2).mean(), new["batch_stats"]

        (value, new), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
        state = state.apply_gradients(grads=gradient)
        return (state.replace(batch_stats=new) if keeps else state), {"loss": value}

    variables = NET.init(jax.random.key(0), X[:1], False)
    return step, State.create(
        apply_fn=NET.apply,
        params=variables["params"],
        tx=optax.adam(1e-2),
        batch_stats=variables["batch_stats"],
    )


def by_statistics(state):
    return NET.apply({"params": state.params, "batch_stats": state.batch_stats}, X, False)


def by_its_own_rows(state):
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    rngs = {"dropout": jax.random.key(0)}
    return NET.apply(variables, X, True, mutable=["batch_stats"], rngs=rngs)[0]


def test_statistics_that_are_thrown_away():
    found = first(*linen(keeps=False), evaluate=by_statistics)
    assert found.cause == "batch_statistics_not_updated"


def of_clients(way):
    """Three clients, each of which makes two steps of its own from what the server has."""

    def loss(params, mean, x, y):
        hidden = jnp.tanh(x @ params["w1"] + params["b1"])
        out = (hidden - hidden.mean(0)) @ params["w2"] + params["b2"]
        new = mean if way == "never measured" else 0.9 * mean + 0.1 * hidden.mean(0)
        return jnp.mean((out - y) ** 2), new

    def of_one(params, mean, x, y):
        def turn(carry, rows):
            params, mean = carry
            slopes, new = jax.grad(loss, has_aux=True)(params, mean, *rows)
            params = jax.tree.map(lambda p, g: p - 0.1 * g, params, slopes)
            return (params, new), None

        (params, mean), _ = jax.lax.scan(turn, (params, mean), (x, y))
        return params, mean

    @jax.jit
    def step(state, batch):
        new, means = jax.vmap(of_one, in_axes=(None, None, 0, 0))(
            state["params"], state["mean"], *batch
        )
        new = {"params": jax.tree.map(lambda leaf: leaf.mean(0), new), "mean": state["mean"]}
        if way == "kept":
            new["mean"] = means.mean(0)
        value, _ = loss(new["params"], new["mean"], batch[0][0, 0], batch[1][0, 0])
        return new, value

    def answers(state):
        hidden = jnp.tanh(X @ state["params"]["w1"] + state["params"]["b1"])
        return (hidden - state["mean"]) @ state["params"]["w2"] + state["params"]["b2"]

    cut = [tuple(a[: 6 * 20].reshape(3, 2, 20, -1) for a in (X, Y))] * 8
    return nnref.examine(
        step, {"params": drawn(), "mean": jnp.zeros(16)}, cut, answers, steps=8, effort=0
    )


@pytest.mark.parametrize("way", ["thrown away", "kept", "never measured"])
def test_statistics_of_an_inner_loop_that_are_thrown_away(way):
    found = of_clients(way)
    causes = [f.cause for f in found.faults if "throws the result away" in f.evidence]
    assert causes == ["batch_statistics_not_updated"] * (way == "thrown away")
    assert not found.mistakes


def test_training_in_evaluation_mode():
    found = first(*linen(trains=False), evaluate=by_statistics)
    assert found.cause == "batch_statistics_not_updated"
    assert "evaluation mode" in found.evidence


def test_evaluation_in_training_mode_and_its_healthy_twin():
    step, state = linen()
    assert faults(step, state, evaluate=by_its_own_rows) == ["evaluation_in_training_mode"]
    assert faults(step, state, evaluate=by_statistics) == []


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(2, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.drop = nnx.Dropout(0.2, rngs=rngs)
        self.out = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(self.drop(nnx.relu(self.norm(self.hidden(x)))))


@nnx.jit
def in_place(model, optimizer, x, y):
    value, gradients = nnx.value_and_grad(lambda m: ((m(x) - y) ** 2).mean())(model)
    optimizer.update(model, gradients)
    return value


def modules(trains=True):
    model = Net(nnx.Rngs(0))
    (model.train if trains else model.eval)()
    return model, nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)


def in_eval_mode(state):
    model = state[0]
    model.eval()
    outputs = model(X)
    model.train()
    return outputs


@pytest.mark.parametrize(
    ("state", "evaluate", "causes"),
    [
        (modules(), lambda state: state[0](X), ["evaluation_in_training_mode"]),
        (modules(trains=False), in_eval_mode, ["batch_statistics_not_updated"]),
        (modules(), in_eval_mode, []),
    ],
)
def test_modules_in_the_wrong_mode(state, evaluate, causes):
    assert faults(in_place, state, BATCHES, evaluate) == causes


def test_an_evaluation_that_raises_is_told_as_the_users():
    found = first(in_place, modules(), BATCHES, lambda state: state[0].missing)
    assert found.cause == "broken_program"
    assert "test_evaluation.py:" in found.where


START = begun()[0]


@pytest.mark.parametrize(
    ("evaluate", "causes"),
    [
        (lambda state: network(START, X), ["metric_mismatch"]),
        (lambda state: network(state[0], 255 * X), ["splits_differ"]),
        (lambda state: network(state[0], X + 9), ["splits_differ"]),
        (lambda state: network(state[0], 1.5 * X + 0.5), []),
    ],
    ids=["the weights of the start", "raw rows", "rows not centred", "other rows"],
)
def test_an_evaluation_of_other_weights_or_other_rows(evaluate, causes):
    assert faults(plain, begun(), BATCHES, evaluate) == causes


@pytest.mark.parametrize("number", [jnp.mean, lambda outputs: float(outputs.mean())])
def test_an_evaluation_of_the_first_weights_by_the_last_statistics(number):
    """It reads of the state what training measured, and none of what training learned."""
    step, state = linen()

    def of_the_start(now):  # of the start
        variables = {"params": state.params, "batch_stats": now.batch_stats}
        return number(NET.apply(variables, X, False))

    found = first(step, state, evaluate=of_the_start)
    assert (found.cause, found.severity) == ("metric_mismatch", "fault")
    assert "reads 2 leaves: batch_stats." in found.evidence
    assert "and no parameter" in found.evidence
    assert "changes a little" in found.evidence
    assert found.where.endswith(f"test_evaluation.py:{line_of(__file__, 'of the start')}")


@pytest.mark.parametrize(
    "number", [lambda outputs: float(outputs.mean()), lambda outputs: int((outputs > 1e9).sum())]
)
def test_evaluations_that_cannot_be_traced_and_read_the_parameters(number):
    """Also one whose answer is the same whatever the parameters are."""
    step, state = linen()
    found = nnref.examine(step, state, BATCHES, lambda now: number(by_statistics(now)), effort=0)
    assert not found.mistakes
    assert not any("no parameter" in finding.evidence for finding in found.faults)


@pytest.mark.parametrize(("better", "causes"), [(jnp.greater, ["metric_mismatch"]), (jnp.less, [])])
def test_the_best_parameters_that_are_kept(better, causes):
    """A loss is better when it is smaller; with the sign turned round the start stays the best."""
    held_out = np.concatenate([x for x, _ in BATCHES]), np.concatenate([y for _, y in BATCHES])

    @jax.jit
    def step(state, batch):
        params, moments, value = plain(state["params"], state["moments"], *batch)
        score = squares(params, *held_out)
        new = better(score, state["score"])
        best = jax.tree.map(lambda a, b: jnp.where(new, a, b), params, state["best"])
        score = jnp.where(new, score, state["score"])
        return {"params": params, "moments": moments, "best": best, "score": score}, value

    params, moments = begun(TX)
    state = {"params": params, "moments": moments, "best": params}
    state |= {"score": squares(params, *held_out)}
    assert faults(step, state, BATCHES, lambda state: network(state["best"], X)) == causes


TARGETS = np.concatenate([y for _, y in BATCHES])
STORED = np.arange(len(X))
ALL = [(X, TARGETS)]


def error_in(unit):
    """The root of the squared error of predictions, against targets that were divided by 100."""

    def evaluate(state):
        predicted = unit * np.asarray(network(state[0], X))
        return float(np.sqrt(np.mean((predicted - 100.0 * TARGETS) ** 2)))

    return evaluate


def signs_in(order):
    """How many signs are right of targets that stand in an order."""
    return lambda state: np.mean(np.sign(network(state[0], X)) == np.sign(TARGETS[order]))


def share_of(rows):
    """A share of 48 rows that was 7 before the first step, and grows by so many."""

    def evaluate(state):
        first = np.asarray(state[0]["w1"]).tolist() == np.asarray(START["w1"]).tolist()
        return (7 if first else 7 + rows) / 48

    return evaluate


@pytest.mark.parametrize(
    ("evaluate", "causes"),
    [
        (share_of(1), ["metric_mismatch"]),
        (share_of(2), []),
        (error_in(1.0), ["metric_mismatch"]),
        (error_in(100.0), []),
        (signs_in(STORED[::-1]), ["metric_mismatch"]),
        (signs_in(STORED), []),
    ],
    ids=[
        "by chance",
        "by more than chance",
        "never unscaled",
        "unscaled",
        "in another order",
        "as learned",
    ],
)
def test_an_evaluation_that_stands_while_the_loss_falls(evaluate, causes):
    tx = optax.adam(3e-2)

    @jax.jit
    def step(params, moments, x, y):
        value, gradient = jax.value_and_grad(squares)(params, x, y)
        updates, moments = tx.update(gradient, moments)
        return optax.apply_updates(params, updates), moments, value

    assert faults(step, begun(tx), ALL, evaluate) == causes


def averaging(decay):
    """A loop that keeps an average of its parameters."""
    tx = optax.adam(3e-2)

    @jax.jit
    def step(state, batch):
        value, gradient = jax.value_and_grad(squares)(state["params"], *batch)
        updates, moments = tx.update(gradient, state["moments"])
        params = optax.apply_updates(state["params"], updates)
        mean = optax.incremental_update(params, state["mean"], 1 - decay)
        return {"params": params, "moments": moments, "mean": mean}, value

    params, moments = begun(tx)
    return step, {"params": params, "moments": moments, "mean": params}, ALL


@pytest.mark.parametrize("decay", [0.9999, 0.9992])
def test_an_average_that_is_evaluated_and_remembers_the_start(decay):
    found = first(*averaging(decay), lambda state: squares(state["mean"], *ALL[0]))
    assert found.cause == "target_stands"
    assert f"over the last {1 / (1 - decay):,.0f} steps" in found.evidence
    assert "1 - 10 / steps (0.958 for 240)" in found.remedy


def test_an_average_that_a_longer_run_may_catch_up_with_is_a_note():
    found = nnref.examine(*averaging(0.998), lambda state: squares(state["mean"], *ALL[0]))
    assert not found.faults
    assert "target_stands" in [note.cause for note in found.notes]


@pytest.mark.parametrize(
    ("decay", "of", "turned"),
    [(0.9, "mean", 1), (0.9992, "params", 1), (0.9992, "mean", -1)],
    ids=["it has caught up", "it is not evaluated", "the parameters are worse"],
)
def test_averages_that_are_not_what_an_evaluation_lacks(decay, of, turned):
    found = nnref.examine(
        *averaging(decay), lambda state: squares(state[of], ALL[0][0], turned * ALL[0][1])
    )
    assert "target_stands" not in [finding.cause for finding in found]
