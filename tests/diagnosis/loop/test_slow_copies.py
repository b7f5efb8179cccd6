"""Target networks and averages of the parameters."""

import jax
import jax.numpy as jnp
import optax
import pytest
from loops import TX, X, Y, drawn, faults, first, network, squares
from networks import line_of

import nnref

ROWS = (jnp.asarray(X), jnp.asarray(Y))
# Batches whose inputs have a mean that running statistics must learn.
AWAY = [(ROWS[0][i : i + 16] + 1, ROWS[1][i : i + 16]) for i in range(0, 64, 16)]


def chasing(params, target, at):
    x, y = (part[at] for part in ROWS)
    wanted = y + 0.5 * network(target, x)
    return jnp.mean((network(params, x) - jax.lax.stop_gradient(wanted)) ** 2)


def call_of(inner, once, share=0.02):
    """Several updates in a call, after each of which, or once, the target moves."""

    @jax.jit
    def call(params, target, opt_state, key):
        for one in jax.random.split(key, inner):
            at = jax.random.randint(one, (16,), 0, len(X))
            value, gradient = jax.value_and_grad(chasing)(params, target, at)
            updates, opt_state = TX.update(gradient, opt_state, params)
            params = optax.apply_updates(params, updates)
            if not once:
                target = optax.incremental_update(params, target, share)
        if once:
            target = optax.incremental_update(params, target, share)  # once a call
        return params, target, opt_state, value

    return call, (drawn(), drawn(), TX.init(drawn()))


def test_a_target_that_moves_once_a_call_of_many_updates():
    found = first(*call_of(4, once=True), batches=None, steps=8)
    assert found.cause == "target_stands"
    assert "4 updates" in found.evidence
    assert "test_slow_copies.py:" in found.where


@pytest.mark.parametrize(
    "loop", [call_of(4, once=False), call_of(2, once=True), call_of(4, once=True, share=1.0)]
)
def test_targets_that_follow_as_they_should(loop):
    """After each update; after two, as in TD3; as a copy once a call."""
    assert faults(*loop, batches=None, steps=8) == []


def step_of(moved):
    @jax.jit
    def step(params, target, opt_state, at):
        value, gradient = jax.value_and_grad(chasing)(params, target, at)
        updates, opt_state = TX.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        new, returned = moved(params, target, opt_state[0].count)
        del new
        return params, returned, opt_state, value

    batches = [jax.random.randint(jax.random.key(i), (16,), 0, len(X)) for i in range(8)]
    return step, (drawn(), drawn(), TX.init(drawn())), batches


def test_a_target_that_is_always_the_network_itself():
    assert faults(*step_of(lambda params, target, count: (None, params))) == ["target_stands"]


def test_a_target_whose_new_value_is_thrown_away():
    def lost(params, target, count):
        return optax.incremental_update(params, target, 0.02), target

    assert faults(*step_of(lost)) == ["target_stands"]


def test_a_target_that_stands_may_be_a_teacher_and_is_a_note():
    step, state, batches = step_of(lambda params, target, count: (None, target))
    found = nnref.examine(step, state, batches)
    assert not found.faults
    assert [note.cause for note in found.notes] == ["target_stands"]


def test_a_copy_every_few_steps_is_healthy():
    def now_and_then(params, target, count):
        return None, optax.periodic_update(params, target, count, 5)

    assert faults(*step_of(now_and_then)) == []


def averaging(move):
    """An average of the parameters, which the loss does not read."""

    @jax.jit
    def step(state, batch):
        value, gradient = jax.value_and_grad(squares)(state["params"], *batch)
        updates, moments = TX.update(gradient, state["moments"])
        params = optax.apply_updates(state["params"], updates)
        mean = jax.tree.map(lambda m, p: m + move(p - m), state["mean"], params)  # the average
        return {"params": params, "moments": moments, "mean": mean}, value

    return step, {"params": drawn(), "moments": TX.init(drawn()), "mean": drawn()}


def test_an_average_that_runs_away_from_the_parameters():
    found = first(*averaging(lambda way: -0.1 * way))
    assert (found.cause, found.severity) == ("target_stands", "fault")
    assert found.where.startswith("4 leaves: mean.b1, ")
    assert found.where.endswith(f"test_slow_copies.py:{line_of(__file__, 'the average')}")
    assert "straight away" in found.evidence


@pytest.mark.parametrize("share", [0.1, 0.001, 1.0])
def test_an_average_that_follows(share):
    assert faults(*averaging(lambda way: share * way)) == []


def test_a_target_that_is_written_from_itself():
    def itself(params, target, count):
        due = count % 5 == 0
        return None, jax.tree.map(lambda t: jnp.where(due, t, t), target)  # moves nothing

    found = first(*step_of(itself))
    assert (found.cause, found.severity) == ("target_stands", "fault")
    assert found.where.endswith(f"test_slow_copies.py:{line_of(__file__, 'moves nothing')}")
    assert "from these same values" in found.evidence


def test_a_copy_that_is_first_made_beyond_the_steps_looked_at_is_healthy():
    def later(params, target, count):
        due = count % 1000 == 0
        return None, jax.tree.map(lambda p, t: jnp.where(due, p, t), params, target)

    assert faults(*step_of(later)) == []


def test_a_target_of_its_own_start_that_is_written_from_itself():
    def itself(params, target, count):
        return None, jax.tree.map(lambda t: jnp.where(count % 5 == 0, t, 1.0 * t), target)

    step, (params, _, moments), batches = step_of(itself)
    assert faults(step, (params, drawn(1), moments), batches) == ["target_stands"]


def towards_a_copy(loss, blend, optimizer=TX):
    """A copy that stands, and parameters that are moved by `blend` behind their update."""

    @jax.jit
    def step(params, target, opt_state, at):
        value, gradient = jax.value_and_grad(loss)(params, target, at)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        params = jax.tree.map(lambda p, t: p + blend * (t - p), params, target)  # the wrong way
        return params, target, opt_state, value

    batches = [jax.random.randint(jax.random.key(i), (16,), 0, len(X)) for i in range(8)]
    return step, (drawn(), drawn(), optimizer.init(drawn())), batches


@pytest.mark.parametrize("blend", [0.95, 0.05])
def test_a_soft_update_that_is_written_over_the_network_that_learns(blend):
    found = first(*towards_a_copy(chasing, blend))
    assert (found.cause, found.severity) == ("target_stands", "fault")
    assert f"hold {blend:g}" in found.evidence
    assert found.where.endswith(f"test_slow_copies.py:{line_of(__file__, 'the wrong way')}")


def held(params, target, at):
    """A penalty on the distance from a copy, as for what was learned before."""
    apart = jax.tree.map(lambda p, t: jnp.sum((p - t) ** 2), params, target)
    return squares(params, *(part[at] for part in ROWS)) + 0.5 * sum(jax.tree.leaves(apart))


@pytest.mark.parametrize(
    "loop", [towards_a_copy(held, 0.0, optax.sgd(0.05)), towards_a_copy(chasing, 0.0)]
)
def test_a_network_that_is_held_near_a_copy_or_learns_from_it(loop):
    assert "target_stands" not in faults(*loop)


def copied_when(count, every):
    """A step that copies to its target where a count of the state is a multiple of a number."""

    @jax.jit
    def step(state, at):
        value, gradient = jax.value_and_grad(chasing)(state["params"], state["target"], at)
        updates, opt_state = TX.update(gradient, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        number = count(state["count"])
        target = optax.periodic_update(params, state["target"], number, every)
        return {
            "params": params,
            "target": target,
            "opt_state": opt_state,
            "count": number,
        }, value

    params = drawn()
    state = {"params": params, "target": drawn(), "opt_state": TX.init(params)}
    return step, state | {"count": jnp.int32(1)}


@pytest.mark.parametrize(
    ("count", "every", "told"),
    [
        (lambda n: jnp.minimum(n + 16, 100), 60, True),
        (lambda n: jnp.minimum(n + 16, 120), 60, False),
        (lambda n: n + 1, 500, False),
    ],
    ids=["never due", "due at the end", "due later"],
)
def test_a_copy_that_waits_for_a_number_which_stands(count, every, told):
    rows = [jnp.asarray(X[:, 0] * 0 + i, jnp.int32)[:16] for i in range(4)]
    found = nnref.examine(*copied_when(count, every), rows, effort=0)
    waiting = [f for f in found.faults if "no longer changes" in f.evidence]
    assert [finding.cause for finding in waiting] == ["target_stands"] * told
    assert all("count = 100" in finding.evidence for finding in waiting)


def remembering(asks):
    """A network beside another one, which becomes its copy now and then; a memory that is full."""

    @jax.jit
    def step(state, at):
        online, other = state["online"], state["other"]
        value, gradient = jax.value_and_grad(chasing)(online, other, at)
        updates, opt_state = TX.update(gradient, state["opt_state"], online)
        online = optax.apply_updates(online, updates)
        filled, learned = jnp.minimum(state["filled"] + 16, 500), state["learned"] + 1
        due = asks(filled, learned) % 300 == 299
        online = jax.tree.map(lambda p: p + 0.0 * filled, online)
        other = jax.tree.map(lambda o, t: jnp.where(due, o, t), online, other)
        counts = {"filled": filled, "learned": learned}
        return {"online": online, "other": other, "opt_state": opt_state, **counts}, value

    state = {"online": drawn(), "other": drawn(1), "opt_state": TX.init(drawn())}
    state |= {"filled": jnp.int32(500), "learned": jnp.int32(0)}
    batches = [jax.random.randint(jax.random.key(i), (16,), 0, len(X)) for i in range(8)]
    return step, state, batches


def test_another_network_that_becomes_a_copy_when_a_full_memory_says_so():
    found = first(*remembering(lambda filled, learned: filled))
    assert found.cause == "target_stands"
    assert "filled" in found.evidence


def test_a_copy_that_is_due_after_the_steps_that_are_made_and_a_full_memory_are_no_faults():
    assert faults(*remembering(lambda filled, learned: learned)) == []


def mean_teacher(statistics):
    """A student with running means, and a teacher that follows its parameters, or its means too."""

    def answer(params, mean, x):
        return network(params, x - mean)

    def step(state, batch):
        student, teacher = state["student"], state["teacher"]
        x, y = batch
        mean = 0.9 * student["mean"] + 0.1 * x.mean(0)

        def loss(params):
            outputs = answer(params, x.mean(0), x)
            wanted = jax.lax.stop_gradient(answer(teacher["params"], teacher["mean"], x))
            return jnp.mean((outputs - y) ** 2) + 0.1 * jnp.mean((outputs - wanted) ** 2)

        value, gradient = jax.value_and_grad(loss)(student["params"])
        updates, opt = TX.update(gradient, state["opt"], student["params"])
        student = {"params": optax.apply_updates(student["params"], updates), "mean": mean}
        moved = optax.incremental_update(student, teacher, 0.05)
        teacher = moved if statistics else moved | {"mean": teacher["mean"]}
        return {"student": student, "teacher": teacher, "opt": opt}, value

    net = {"params": drawn(), "mean": jnp.zeros(X.shape[1])}
    state = {"student": net, "teacher": net, "opt": TX.init(drawn())}
    return step, state, AWAY


def test_a_teacher_that_follows_in_part():
    found = first(*mean_teacher(statistics=False))
    assert found.cause == "batch_statistics_not_updated"
    assert "teacher.mean" in found.where
    assert "student.mean" in found.evidence
    assert faults(*mean_teacher(statistics=True)) == []


def averaged(statistics):
    """A network with running means, whose average is evaluated, with those of its means or not."""

    def step(state, batch):
        x, y = batch
        mean = 0.9 * state["mean"] + 0.1 * x.mean(0)

        def loss(params):
            return jnp.mean((network(params, x - x.mean(0)) - y) ** 2)

        value, gradient = jax.value_and_grad(loss)(state["params"])
        updates, opt = TX.update(gradient, state["opt"], state["params"])
        live = {"params": optax.apply_updates(state["params"], updates), "mean": mean}
        followed = live if statistics else {"params": live["params"]}
        average = {
            name: optax.incremental_update(part, state["average"][name], 0.05)
            for name, part in followed.items()
        }
        return {**live, "average": {**state["average"], **average}, "opt": opt}, value

    def evaluate(state):
        average = state["average"]
        outputs = network(average["params"], ROWS[0] + 1 - average["mean"])
        return float(jnp.mean((outputs - ROWS[1]) ** 2))

    live = {"params": drawn(), "mean": jnp.zeros(X.shape[1])}
    state = {**live, "average": live, "opt": TX.init(drawn())}
    return step, state, AWAY, evaluate


def test_an_average_that_is_evaluated_with_the_statistics_of_the_start():
    """It lies deeper in the state than what it is an average of."""
    found = first(*averaged(statistics=False))
    assert found.cause == "batch_statistics_not_updated"
    assert "average.mean" in found.where
    assert "the evaluation reads" in found.evidence
    assert faults(*averaged(statistics=True)) == []
