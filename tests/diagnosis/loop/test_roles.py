"""What the leaves of a state are taken for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from loops import BATCHES, TX, begun, drawn, plain, squares

import nnref
from nnref import UserError
from nnref.diagnosis.loop.roles import but_for_one, in_common, of_optimizers, original_of, partners


def roles_in(step, state, **others):
    return nnref.examine(step, state, BATCHES, steps=4, **others).measures["roles"]


def test_roles_of_a_plain_loop_and_their_correction():
    found = roles_in(plain, begun())
    assert {path for path, role in found.items() if role == "parameter"} == {
        f"0.{name}" for name in drawn()
    }
    assert found["1.0.count"] == "counter"
    assert found["1.0.mu.w1"] == found["1.0.nu.b2"] == "moment"
    assert roles_in(plain, begun(), roles={"0.b2": "other"})["0.b2"] == "other"
    with pytest.raises(UserError, match=r"roles name 'b2'.* it has 0\.b1"):
        roles_in(plain, begun(), roles={"b2": "other"})
    with pytest.raises(UserError, match="a role is one of parameter, moment"):
        roles_in(plain, begun(), roles={"0.b2": "weight"})


def test_roles_of_an_optimizer_that_is_written_by_hand():
    @jax.jit
    def step(state, batch):
        value, gradient = jax.value_and_grad(squares)(state["net"], *batch)
        speed = jax.tree.map(lambda v, g: 0.9 * v + g, state["speed"], gradient)
        net = jax.tree.map(lambda p, v: p - 0.01 * v, state["net"], speed)
        mean = optax.incremental_update(net, state["mean"], 0.1)
        key, _ = jax.random.split(state["key"])
        new = {"net": net, "speed": speed, "mean": mean, "key": key, "n": state["n"] + 1}
        return new, value

    zeros = jax.tree.map(jnp.zeros_like, drawn())
    state = {"net": drawn(), "speed": zeros, "mean": drawn(), "n": jnp.int32(0)}
    found = roles_in(step, state | {"key": jax.random.key(0)})
    assert found["net.w1"] == "parameter"
    assert found["mean.w1"] == "target"
    assert found["key"] == "key"
    assert found["n"] == "counter"
    assert found["speed.w1"] == "moment"


def test_a_memory_that_is_filled_and_learned_from_is_no_parameter():
    @jax.jit
    def step(state, batch):
        x, y = batch
        at = (state["turn"] * len(x) + jnp.arange(len(x))) % 256
        inputs, answers = state["inputs"].at[at].set(x), state["answers"].at[at].set(y)
        kinds = state["kinds"].at[at].set(1)

        def loss(net):
            return squares(net, inputs, answers) + 0 * kinds.sum()

        value, gradient = jax.value_and_grad(loss)(state["net"])
        updates, moments = TX.update(gradient, state["moments"])
        net = optax.apply_updates(state["net"], updates)
        new = {"net": net, "moments": moments, "turn": state["turn"] + 1, "kinds": kinds}
        return new | {"inputs": inputs, "answers": answers}, value

    memory = {"inputs": jnp.zeros((256, 2)), "answers": jnp.zeros((256, 1))}
    memory |= {"kinds": jnp.zeros(256, int), "turn": jnp.int32(0)}
    found = roles_in(step, {"net": drawn(), "moments": TX.init(drawn()), **memory})
    assert {found[name] for name in ("inputs", "answers", "kinds")} == {"other"}
    assert found["turn"] == "counter"
    assert found["net.w1"] == "parameter"


def test_what_belongs_to_an_optimizer():
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    assert of_optimizers((model, nnx.Optimizer(model, TX, wrt=nnx.Param))) == {"1.opt_state"}
    assert of_optimizers({"w": drawn(), "o": TX.init(drawn())}) == {"o.0", "o.1"}


def test_paths_that_belong_together():
    assert in_common("1.0.mu.a.kernel", "0.a.kernel") == 2
    assert but_for_one("online.w", "target.w")
    assert but_for_one("w", "target_w")
    assert not but_for_one("norm.mean", "norm.bias")
    assert but_for_one("ema.params.w", "params.w")
    assert but_for_one("net.ema.w", "net.w")
    assert not but_for_one("params.w", "ema.params.w")
    assert not but_for_one("a.b", "a")
    assert original_of("teacher.b.v", "teacher.a.w", "student.a.w") == "student.b.v"
    assert original_of("ema.mean", "ema.params.w", "params.w") == "mean"
    assert original_of("student.b.v", "teacher.a.w", "student.a.w") is None
    assert original_of("target_b", "target_w", "w") is None
    shapes = {"mu.w": (2,), "w": (2,), "v": (2,), "nu": (3,), "b": (3,), "old.w": (2,)}
    moved = {"w": 1.0, "v": 3.0, "b": 0.0, "old.w": 0.1}
    assert partners(["mu.w", "nu"], moved, shapes, moved) == {"mu.w": "w", "nu": "b"}


def test_an_optimizer_of_nnx_that_is_taken_apart_and_what_is_carried_beside_it():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.hidden = nnx.Linear(2, 4, rngs=rngs)
            self.out = nnx.Linear(4, 1, rngs=rngs)

    model = Net(nnx.Rngs(0))
    graph, variables = nnx.split((model, nnx.Optimizer(model, TX, wrt=nnx.Param)))

    @jax.jit
    def step(state, batch):
        (variables, carry), (x, y, keep) = state, batch
        model, optimizer = nnx.merge(graph, variables)

        def loss(model):
            h = jnp.tanh(model.hidden(x) + keep * carry)
            return jnp.mean((model.out(h) - y) ** 2), h

        (value, h), gradient = nnx.value_and_grad(loss, has_aux=True)(model)
        optimizer.update(model, gradient)
        return (nnx.state((model, optimizer)), h), value

    batches = [(x, y, np.float32(i > 0)) for i, (x, y) in enumerate(BATCHES)]
    state = (variables, jnp.zeros((16, 4)))
    answer = nnref.examine(step, state, batches, effort=0)
    found = answer.measures["roles"]
    assert found["0.0.hidden.kernel.value"] == "parameter"
    assert found["0.1.opt_state.0.mu.hidden.kernel.value"] == "moment"
    assert found["1"] == "other"
    assert "loss_axis_error" not in [each.cause for each in answer.found]  # of their own rows
