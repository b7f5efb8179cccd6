"""What a teacher has said of other rows, and parts of a batch that only look so."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import faults, first
from networks import line_of

import nnref

RANDOM = np.random.default_rng(0)
CLASSES, WIDTH, ROWS = 4, 6, 512
CENTRES = 2 * RANDOM.normal(size=(CLASSES, WIDTH))
LABELS = RANDOM.integers(0, CLASSES, ROWS).astype(np.int32)
X = (CENTRES[LABELS] + RANDOM.normal(size=(ROWS, WIDTH)) / 2).astype(np.float32)
TAUGHT = -((X[:, None] - CENTRES) ** 2).sum(-1).astype(np.float32) / 2
NOISE = RANDOM.normal(size=(ROWS, CLASSES)).astype(np.float32)
MIXED = (NOISE @ RANDOM.normal(size=(CLASSES, CLASSES))).astype(np.float32)
TX = optax.adam(1e-2)


def loop(term, third, labels=LABELS):
    """A step whose loss is the entropy of labels and a term of logits and the third part."""
    drawn = jax.random.normal(jax.random.key(0), (3, 8, 8)) / 3
    params = {"w": drawn[0, :WIDTH], "out": drawn[1, :, :CLASSES], "more": drawn[2, :CLASSES]}

    @jax.jit
    def step(params, opt_state, batch):
        x, y, third = batch

        def loss(params):
            logits = jnp.tanh(x @ params["w"]) @ params["out"]
            if y.ndim == 1:
                plain = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
            else:
                plain = jnp.mean((logits - y) ** 2)
            decay = 1e-4 * sum(jnp.sum(w**2) for w in jax.tree.leaves(params))
            return plain + term(params, logits, third) + decay

        value, gradient = jax.value_and_grad(loss)(params)
        updates, opt_state = TX.update(gradient, opt_state)
        return optax.apply_updates(params, updates), opt_state, value

    batches = [(X[i : i + 32], labels[i : i + 32], third[i : i + 32]) for i in range(0, ROWS, 32)]
    return step, (params, TX.init(params)), batches


def distilled(params, logits, taught):
    soft = jax.nn.softmax(taught / 4)  # what the teacher said
    return optax.losses.kl_divergence(jax.nn.log_softmax(logits / 4), soft).mean()


def squared(params, logits, taught):
    return jnp.mean((logits - taught) ** 2)


def weighed(params, logits, weights):
    return jnp.mean(weights * jnp.log1p(logits**2))


def through_a_layer(params, logits, noise):
    return jnp.mean((jnp.tanh(logits + noise) @ params["more"]) ** 2)


@pytest.mark.parametrize(("term", "labels"), [(distilled, LABELS), (squared, TAUGHT + 1)])
def test_a_teacher_that_was_asked_of_other_rows(term, labels):
    other = RANDOM.permutation(TAUGHT)
    found = first(*loop(term, other, labels))
    assert found.cause == "corrupted_labels"
    assert found.where.startswith("batches, 2")
    assert "part 2 of the batches" in found.evidence
    assert "corrupted_labels" not in faults(*loop(term, TAUGHT, labels))


def test_the_line_where_a_teacher_comes_in():
    found = first(*loop(distilled, RANDOM.permutation(TAUGHT)))
    assert found.where.endswith(f"test_other_rows.py:{line_of(__file__, 'what the teacher said')}")


@pytest.mark.parametrize(
    ("term", "third", "labels"),
    [
        (weighed, np.exp(MIXED), LABELS),
        (through_a_layer, MIXED, LABELS),
        (squared, NOISE, LABELS),
        (distilled, RANDOM.permutation(TAUGHT), RANDOM.permutation(LABELS)),
        (squared, np.eye(CLASSES, dtype=np.float32)[LABELS] + 0.5 * MIXED, LABELS),
    ],
    ids=["weights", "noise of a layer", "noise", "no labels either", "a poor teacher"],
)
def test_parts_that_no_other_order_would_mend(term, third, labels):
    found = nnref.examine(*loop(term, third, labels), effort=0)
    assert not found.mistakes
    assert not any("belongs to other rows" in finding.evidence for finding in found)


# --- numbers that are kept for the places of a batch ----------------------------------------------

KEPT = jnp.asarray(TAUGHT.reshape(-1, 32, CLASSES))


def of_kept(term):
    """A step whose loss has a term of logits and the number of the batch."""

    @jax.jit
    def step(params, opt_state, batch):
        number, x, y = batch

        def loss(params):
            hidden = jnp.tanh(x @ params["w"])
            logits = hidden @ params["out"]
            plain = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
            return plain + term(params, hidden, logits, number)

        value, gradient = jax.value_and_grad(loss)(params)
        updates, opt_state = TX.update(gradient, opt_state)
        return optax.apply_updates(params, updates), opt_state, value

    drawn = jax.random.normal(jax.random.key(0), (2, 8, 8)) / 3
    params = {"w": drawn[0, :WIDTH], "out": drawn[1, :, :CLASSES]}
    return step, (params, TX.init(params))


def anew():
    order = RANDOM.permutation(ROWS)
    for number, rows in enumerate(order.reshape(-1, 32)):
        yield number, X[rows], LABELS[rows]


def kept_outputs(params, hidden, logits, number):
    return jnp.mean((logits - KEPT[number]) ** 2)  # for a place


def frequencies(params, hidden, logits, number):
    return jnp.mean((jax.nn.softmax(logits) - jnp.full(CLASSES, 1 / CLASSES)) ** 2)


def noise_within(params, hidden, logits, number):
    noise = jnp.tile(KEPT[number], (1, 2))
    return jnp.mean(jax.nn.relu((hidden * noise) @ params["out"]))


def test_outputs_of_a_teacher_that_were_kept_for_places_and_not_for_rows():
    found = first(*of_kept(kept_outputs), anew)
    assert (found.cause, found.severity) == ("corrupted_labels", "fault")
    assert found.where.endswith(f":{line_of(__file__, 'for a place')}")
    assert "kept for each place of a batch" in found.evidence


@pytest.mark.parametrize(
    ("term", "batches"),
    [(kept_outputs, list(anew())), (frequencies, anew), (noise_within, anew)],
)
def test_places_that_keep_their_rows_and_numbers_that_are_no_targets(term, batches):
    assert "corrupted_labels" not in faults(*of_kept(term), batches)
