"""Healthy loops in the styles of Flax, Optax, Equinox and Haiku: no fault is found in them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx, struct
from flax.training import train_state
from loops import BATCHES, TX, X, Y, begun, drawn, faults, network, plain, squares

import nnref
from nnref import UserError
from nnref.diagnosis.findings import Finding, is_mistake
from nnref.diagnosis.loop.evaluation import NOT_LEARNED
from nnref.diagnosis.loop.examine import with_reasons

HEALTHY = {}


def healthy(make):
    """A function that gives the arguments of nnref.examine for a loop that is in order."""
    HEALTHY[make.__name__] = make
    return make


@healthy
def plain_jax_with_an_evaluation():
    return plain, begun(), BATCHES, lambda state: squares(state[0], X, Y)


@healthy
def the_step_gives_its_buffers_away():
    return jax.jit(plain, donate_argnums=(0, 1)), begun(), BATCHES


@healthy
def gradient_descent_by_hand():
    @jax.jit
    def update(params, batch):
        gradient = jax.grad(squares)(params, *batch)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)

    return update, drawn(), BATCHES, lambda params: network(params, X)


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.relu(nn.Dense(16)(x)))


def train_state_of(optimizer=TX):
    net = Dense()
    params = net.init(jax.random.key(0), X[:1])["params"]
    return train_state.TrainState.create(apply_fn=net.apply, params=params, tx=optimizer)


def linen_step(state, batch):
    def loss(params):
        return jnp.mean((state.apply_fn({"params": params}, batch["x"]) - batch["y"]) ** 2)

    value, gradient = jax.value_and_grad(loss)(state.params)
    return state.apply_gradients(grads=gradient), {"loss": value}


NAMED = [{"x": x, "y": y} for x, y in BATCHES]


@healthy
def linen_with_a_train_state():
    return jax.jit(linen_step), train_state_of(), NAMED


@healthy
def linen_without_a_jit():
    return linen_step, train_state_of(), NAMED[:4]


@healthy
def linen_with_schedule_clipping_and_decay():
    rate = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 10, 400)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=1e-2))
    return jax.jit(linen_step), train_state_of(optimizer), NAMED


@healthy
def several_batches_to_an_update():
    return jax.jit(linen_step), train_state_of(optax.MultiSteps(TX, 4)), NAMED


@healthy
def a_part_is_frozen():
    labels = {"Dense_0": "frozen", "Dense_1": "trained"}
    parts = {"frozen": optax.set_to_zero(), "trained": TX}
    return jax.jit(linen_step), train_state_of(optax.multi_transform(parts, labels)), NAMED


@healthy
def metrics_are_gathered_in_the_state():
    @struct.dataclass
    class Sums:
        total: jax.Array
        count: jax.Array

    class State(train_state.TrainState):
        sums: Sums

    old = train_state_of()
    state = State.create(
        apply_fn=old.apply_fn,
        params=old.params,
        tx=TX,
        sums=Sums(jnp.float32(0), jnp.int32(0)),
    )

    @jax.jit
    def step(state, batch):
        new, metrics = linen_step(state, batch)
        sums = Sums(new.sums.total + metrics["loss"], new.sums.count + 1)
        return new.replace(sums=sums)

    return step, state, NAMED


@healthy
def a_moving_average_of_the_parameters():
    @jax.jit
    def step(state, batch):
        params, opt_state, value = plain(state["params"], state["opt_state"], *batch)
        mean = optax.incremental_update(params, state["ema"], 0.05)
        return {"params": params, "opt_state": opt_state, "ema": mean}, value

    params, opt_state = begun()
    state = {"params": params, "opt_state": opt_state, "ema": drawn()}
    return step, state, BATCHES, lambda state: squares(state["ema"], X, Y)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(2, 16, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        self.out = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(self.drop(nnx.relu(self.hidden(x))))


def nnx_step(model, optimizer, x, y):
    value, gradients = nnx.value_and_grad(lambda model: jnp.mean((model(x) - y) ** 2))(model)
    optimizer.update(model, gradients)
    return value


def modules():
    model = Net(nnx.Rngs(0))
    return model, nnx.Optimizer(model, TX, wrt=nnx.Param)


@healthy
def nnx_changed_in_place():
    return nnx.jit(nnx_step), modules(), BATCHES


@healthy
def nnx_split_and_merged_by_hand():
    graph, state = nnx.split(modules())

    @jax.jit
    def step(state, batch):
        model, optimizer = nnx.merge(graph, state)
        value = nnx_step(model, optimizer, *batch)
        return nnx.state((model, optimizer)), value

    return step, state, BATCHES


@healthy
def several_updates_in_a_scan():
    @jax.jit
    def epoch(params, opt_state, rows):
        def body(carry, row):
            *carry, value = plain(*carry, *row)
            return tuple(carry), value

        (params, opt_state), losses = jax.lax.scan(body, (params, opt_state), rows)
        return params, opt_state, losses

    return epoch, begun(), lambda number: (X.reshape(8, 16, 2), Y.reshape(8, 16, 1))


@healthy
def an_autoencoder_that_draws():
    @jax.jit
    def step(state, batch, rng):
        def loss(params):
            noise = 0.1 * jax.random.normal(rng, batch[0].shape)
            return squares(params, batch[0] + noise, batch[0][:, :1])

        value, gradient = jax.value_and_grad(loss)(state[0])
        updates, opt_state = TX.update(gradient, state[1])
        return (optax.apply_updates(state[0], updates), opt_state), {"loss": value}

    return step, begun(), BATCHES, lambda state: network(state[0], X)


@healthy
def two_networks_in_turn():
    """A GAN: its losses do not fall, and that is as it should be."""

    def judged(discriminator, x):
        return network(discriminator, x)

    def generated(generator, rows):
        return jnp.concatenate([network(generator, rows), network(generator, -rows)], 1)

    def d_loss(discriminator, generator, rows):
        real, fake = judged(discriminator, rows), judged(discriminator, generated(generator, rows))
        return jnp.mean(jax.nn.softplus(-real) + jax.nn.softplus(fake))

    @jax.jit
    def d_step(state, batch):
        value, gradient = jax.value_and_grad(d_loss)(state["d"], state["g"], batch[0])
        updates, opt_d = TX.update(gradient, state["opt_d"])
        return state | {"d": optax.apply_updates(state["d"], updates), "opt_d": opt_d}, value

    @jax.jit
    def g_step(state, batch):
        def loss(generator):
            return jnp.mean(jax.nn.softplus(-judged(state["d"], generated(generator, batch[0]))))

        value, gradient = jax.value_and_grad(loss)(state["g"])
        updates, opt_g = TX.update(gradient, state["opt_g"])
        return state | {"g": optax.apply_updates(state["g"], updates), "opt_g": opt_g}, value

    d, g = drawn(0), drawn(1)
    state = {"d": d, "g": g, "opt_d": TX.init(d), "opt_g": TX.init(g)}
    return [d_step, g_step], state, BATCHES


@healthy
def two_networks_in_one_step():
    """A GAN whose step moves both: the generator climbs the loss of its judge."""

    def generated(generator, rows):
        return jnp.concatenate([network(generator, rows), network(generator, -rows)], 1)

    def d_loss(d, fake, rows):
        real, other = network(d, rows), network(d, fake)
        return jnp.mean(jax.nn.softplus(-real) + jax.nn.softplus(other))

    def g_loss(g, d, rows):
        return jnp.mean(jax.nn.softplus(-network(d, generated(g, rows))))

    @jax.jit
    def step(state, batch):
        of_d, slope = jax.value_and_grad(d_loss)(
            state["d"], generated(state["g"], batch[0]), batch[0]
        )
        updates, opt_d = TX.update(slope, state["opt_d"])
        d = optax.apply_updates(state["d"], updates)
        of_g, slope = jax.value_and_grad(g_loss)(state["g"], d, batch[0])
        updates, opt_g = TX.update(slope, state["opt_g"])
        g = optax.apply_updates(state["g"], updates)
        return {"d": d, "g": g, "opt_d": opt_d, "opt_g": opt_g}, {"of_d": of_d, "of_g": of_g}

    d, g = drawn(0), drawn(1)
    return step, {"d": d, "g": g, "opt_d": TX.init(d), "opt_g": TX.init(g)}, BATCHES


@healthy
def a_policy_that_climbs_its_reward():
    @jax.jit
    def step(params, batch, key):
        def reward(params):
            logits = network(params, batch[0])[:, 0]
            act = jax.random.bernoulli(key, jax.nn.sigmoid(logits))
            paid = jnp.where(act, batch[1][:, 0], -batch[1][:, 0])
            return jnp.mean(jax.nn.log_sigmoid(jnp.where(act, logits, -logits)) * paid)

        value, gradient = jax.value_and_grad(reward)(params)
        params = jax.tree.map(lambda p, g: p + 0.05 * g, params, gradient)
        return params, {"reward": value}

    return step, drawn(), BATCHES


@healthy
def labels_that_are_classes():
    @jax.jit
    def step(state, batch):
        def loss(params):
            logits = jnp.concatenate([network(params, batch[0]), jnp.zeros((16, 1))], 1)
            labels = (batch[1][:, 0] > 0).astype(jnp.int32)
            each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return each.mean(), (logits.argmax(-1) == labels).mean()

        (value, right), gradient = jax.value_and_grad(loss, has_aux=True)(state[0])
        updates, opt_state = TX.update(gradient, state[1])
        metrics = {"loss": value, "accuracy": right}
        return (optax.apply_updates(state[0], updates), opt_state), metrics

    return step, begun(), BATCHES


@healthy
def equinox_module():
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(2, 1, 16, 1, key=jax.random.key(0))

    @eqx.filter_jit
    def make_step(model, opt_state, x, y):
        def loss(model):
            return jnp.mean((jax.vmap(model)(x) - y) ** 2)

        value, gradient = eqx.filter_value_and_grad(loss)(model)
        updates, opt_state = TX.update(gradient, opt_state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), opt_state, value

    state = (model, TX.init(eqx.filter(model, eqx.is_array)))
    return make_step, state, BATCHES, lambda state: jax.vmap(state[0])(X)


@healthy
def haiku_with_a_state():
    hk = pytest.importorskip("haiku")

    def forward(x, training):
        x = hk.BatchNorm(True, True, 0.9)(hk.Linear(16)(x), training)
        return hk.Linear(1)(jax.nn.relu(x))

    net = hk.without_apply_rng(hk.transform_with_state(forward))
    params, rest = net.init(jax.random.key(0), X[:2], True)

    @jax.jit
    def step(params, rest, opt_state, x, y):
        def loss(params):
            outputs, new = net.apply(params, rest, x, True)
            return jnp.mean((outputs - y) ** 2), new

        (value, new), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = TX.update(gradient, opt_state)
        return optax.apply_updates(params, updates), new, opt_state, value

    state = (params, rest, TX.init(params))
    return step, state, BATCHES, lambda s: net.apply(s[0], s[1], X, False)[0]


@healthy
def numpy_within_a_step():
    def step(state, batch):
        params, opt_state, value = plain(*state, *batch)
        return (params, opt_state), {"loss": float(value)}

    return step, begun(), BATCHES


def test_there_are_twenty_healthy_loops():
    assert len(HEALTHY) >= 20


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_loop_has_no_fault(name):
    step, state, batches, *evaluate = HEALTHY[name]()
    assert faults(step, state, batches, *evaluate, steps=24) == []


def test_an_answer_says_what_was_looked_at_and_what_was_not():
    found = nnref.examine(*numpy_within_a_step(), steps=4)
    assert any("cannot be traced as a whole" in line for line in found.impossible)
    assert any("give evaluate=" in line for line in found.impossible)
    assert "whether what changes comes back" in found.checked
    assert set(found.measures["roles"].values()) == {"parameter", "moment", "counter"}
    assert not np.isnan(found.measures["first loss of the loop"])


@pytest.mark.parametrize("steps", [0, 2.5, None])
def test_a_number_of_steps_that_is_none_is_refused(steps):
    with pytest.raises(UserError, match="whole number from 2 up"):
        nnref.examine(plain, begun(), BATCHES, steps=steps)


STANDS = Finding("metric_mismatch", "fault", "evaluate", f"0.1 as before: {NOT_LEARNED}")
REPEATED = Finding("repeated_rows", "fault", "batches", "24 rows in all")
LEFT_OUT = Finding("parameters_not_updated", "note", "actor", "stands", confidence=0.5)
ANOTHER = Finding("overfitting", "note", "validation rows", "a gap")


@pytest.mark.parametrize(
    ("found", "faults_of_them"),
    [
        ([STANDS], ["metric_mismatch"]),
        ([STANDS, ANOTHER], ["metric_mismatch"]),
        ([STANDS, REPEATED], ["repeated_rows"]),  # which brings it about
        ([STANDS, LEFT_OUT], ["parameters_not_updated"]),  # which is not meant so, then
        ([LEFT_OUT, ANOTHER], []),
    ],
)
def test_an_evaluation_that_stands_is_what_another_fault_brings_about(found, faults_of_them):
    sorted_out = with_reasons(found)
    assert len(sorted_out) == len(found)
    assert [f.cause for f in sorted_out if f.severity == "fault"] == faults_of_them


@pytest.mark.parametrize(("error", "ours"), [(UserError("no"), False), (ValueError("no"), True)])
def test_what_cannot_be_asked_is_no_mistake_of_nnref(error, ours):
    """Of what a line of nnref raises."""
    line = compile("def refuse(error):\n    raise error", nnref.__file__, "exec")
    names = {}
    exec(line, names)
    with pytest.raises(type(error)) as caught:
        names["refuse"](error)
    assert is_mistake(caught.value) == ours
