"""Regularizers: their definitions, each on alone, and off means not in the program."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnref.errors import UserError
from nnref.experiment.experiment import Experiment
from nnref.parts import regularizers
from nnref.parts.regularizers import Regularization
from nnref.training.setup import Setup

rng = np.random.default_rng(0)


def some(*shape):
    return rng.normal(0, 1, shape).astype(np.float32)


PARAMS = {"kernel": some(4, 3), "bias": some(3), "window": some(3, 3, 2, 5), "scale": some(5)}
GRADS = {name: some(*w.shape) for name, w in PARAMS.items()}
KERNELS = {"kernel", "window"}
EVERY_TERM = Regularization(l1=0.1, l2=0.2, input_noise=0.1, shift=2, flip=True)


def updated(term, updates=GRADS, params=PARAMS):
    return term.update(updates, term.init(params), params)[0]


# --- off is off ---------------------------------------------------------------------------------


def augmented(terms, x):
    return jax.make_jaxpr(lambda x, key: regularizers.augment(terms, x, key))(x, jax.random.key(0))


def test_what_is_off_adds_nothing_to_inputs_and_gradients():
    assert regularizers.gradient_terms(Regularization()) == []
    assert augmented(Regularization(), some(2, 5, 5)).eqns == []


STRENGTHS = {
    "l1": 0.1,
    "l2": 0.1,
    "weight_decay": 0.1,
    "dropout": 0.2,
    "normalization": "layer",
    "input_noise": 0.1,
    "label_smoothing": 0.1,
    "max_norm": 1.0,
    "shift": 1,
    "flip": True,
    "average": 0.9,
}


def program_of_a_step(regularization):
    experiment = Experiment(
        data={"name": "digits", "images": True},
        model={"name": "mlp", "hidden": [5]},
        loss="softmax_cross_entropy",
        optimizer={"name": "sgd", "momentum": 0.9},
        regularization=regularization,
        batch_size=4,
        epochs=1,
    )
    setup = Setup(experiment.structure, (8, 8, 1), 10, 10, 300, 300, experiment)

    def step(numbers, key, x, y):
        functions, optimizer = setup(numbers)
        params, model_state = functions.init(key)
        loss = functions.training_loss or functions.loss
        grads = jax.grad(lambda w: loss(functions.apply(w, model_state, x, key, True)[0], y))
        return optimizer.update(grads(params), optimizer.init(params), params)

    x, y = jnp.zeros((4, 8, 8, 1)), jnp.zeros(4, jnp.int32)
    return str(jax.make_jaxpr(step)(experiment.hyperparameters, jax.random.key(0), x, y))


def test_every_term_is_in_the_program_of_a_step_where_it_is_on_and_only_there():
    assert set(STRENGTHS) == set(Regularization._fields) - {"decay_everything"}
    nothing = program_of_a_step({})
    assert program_of_a_step("off") == nothing
    operations = {
        name: program_of_a_step({name: strength}).count(" = ")
        for name, strength in STRENGTHS.items()
    }
    assert {n for n, count in operations.items() if count <= nothing.count(" = ")} == set()


@pytest.mark.parametrize(("name", "off"), [("flip", False), ("shift", None), ("input_noise", None)])
def test_a_term_of_the_inputs_is_on_and_off_alone(name, off):
    x = some(2, 5, 5)
    alone = Regularization(**{name: getattr(EVERY_TERM, name)})
    assert augmented(alone, x).eqns
    assert len(augmented(EVERY_TERM._replace(**{name: off}), x).eqns) < len(
        augmented(EVERY_TERM, x).eqns
    )


def test_switching_a_term_off_leaves_what_the_others_draw():
    x = some(9, 5, 5)

    @jax.jit
    def both(key):
        without = regularizers.augment(EVERY_TERM._replace(input_noise=None), x, key)
        noise = regularizers.augment(Regularization(input_noise=0.1), x, key) - x
        return regularizers.augment(EVERY_TERM, x, key), without + noise

    np.testing.assert_allclose(*both(jax.random.key(3)), rtol=1e-5, atol=1e-6)


# --- on gradients and steps ---------------------------------------------------------------------


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize(
    ("name", "penalty"),
    [("l1", lambda w: 0.3 * np.abs(w)), ("l2", lambda w: 0.3 / 2 * w**2)],
)
def test_kernels_are_pulled_by_the_slope_of_the_penalty_and_the_rest_on_demand(
    name, penalty, everything
):
    terms = Regularization(**{name: 0.3}, decay_everything=everything)
    (term,) = regularizers.gradient_terms(terms)
    for array, u in updated(term).items():
        w, h = PARAMS[array].astype(float), 1e-6
        slope = (penalty(w + h) - penalty(w - h)) / (2 * h)
        pulled = everything or array in KERNELS
        np.testing.assert_allclose(u, GRADS[array] + slope * pulled, rtol=1e-5, atol=1e-6)


def test_l1_leaves_a_weight_at_zero():
    zero = {"w": np.zeros((2, 2), np.float32)}
    np.testing.assert_array_equal(updated(regularizers.l1(0.3), zero, zero)["w"], 0)


def test_terms_of_the_gradient_come_first_and_both():
    terms = regularizers.gradient_terms(EVERY_TERM)
    got = updated(optax.chain(*terms))["kernel"]
    w = PARAMS["kernel"]
    np.testing.assert_allclose(got, GRADS["kernel"] + 0.1 * np.sign(w) + 0.2 * w, rtol=1e-6)


def test_max_norm_projects_the_weights_that_enter_each_unit():
    radius = 1.5
    after = optax.apply_updates(PARAMS, updated(regularizers.max_norm(radius)))
    for name, w in PARAMS.items():
        free = w + GRADS[name]
        if name not in KERNELS:
            np.testing.assert_array_equal(after[name], free)
            continue
        flat, kept = free.reshape(-1, free.shape[-1]), np.reshape(after[name], (-1, free.shape[-1]))
        norms = np.linalg.norm(flat, axis=0)
        assert norms.max() > radius
        np.testing.assert_allclose(kept, flat * np.minimum(1, radius / norms), rtol=1e-5, atol=1e-6)
    inside = {"w": 0.1 * PARAMS["kernel"]}
    got = updated(regularizers.max_norm(radius), inside, inside)["w"]
    np.testing.assert_allclose(got, inside["w"], rtol=1e-5)  # (w + u) - w rounds
    nothing = {"w": np.zeros((2, 2), np.float32)}
    np.testing.assert_array_equal(updated(regularizers.max_norm(1.0), nothing, nothing)["w"], 0)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_the_average_is_that_of_the_weights_after_each_step(decay):
    term = regularizers.weight_average(decay)
    params = PARAMS
    state = term.init(params)
    np.testing.assert_array_equal(state.average["bias"], PARAMS["bias"])
    sums, weights = dict.fromkeys(params, 0.0), 0.0
    for t in range(5):
        updates = {name: g * np.float32(1 + t) for name, g in GRADS.items()}
        got, state = term.update(updates, state, params)
        assert got is updates
        params = optax.apply_updates(params, updates)
        sums = {n: decay * sums[n] + (1 - decay) * np.asarray(params[n], float) for n in params}
        weights = decay * weights + (1 - decay)
        for name in params:
            # Random first weights do not enter, whatever the decay.
            np.testing.assert_allclose(
                state.average[name], sums[name] / weights, rtol=1e-5, atol=1e-5
            )


def test_the_average_has_buffers_of_its_own_that_can_be_given_away():
    term = regularizers.weight_average(0.9)
    params = jax.tree.map(jnp.asarray, PARAMS)
    step = jax.jit(lambda w, state: term.update(w, state, w), donate_argnums=(0, 1))
    _, state = step(params, term.init(params))
    np.testing.assert_allclose(state.average["bias"], 2 * PARAMS["bias"], rtol=1e-6)


def test_the_average_sees_the_projected_weights():
    terms = optax.chain(regularizers.max_norm(1.0), regularizers.weight_average(0.9))
    state = terms.init(PARAMS)
    updates, state = terms.update(GRADS, state, PARAMS)
    after = optax.apply_updates(PARAMS, updates)
    np.testing.assert_allclose(optax.tree.get(state, "average")["kernel"], after["kernel"])
    assert np.linalg.norm(after["kernel"], axis=0).max() <= 1.0 + 1e-6


@pytest.mark.parametrize("name", ["l1", "l2", "max_norm", "weight_average"])
def test_strengths_may_be_traced(name):
    values = np.array([0.1, 0.7], np.float32)

    def run(value):
        term = getattr(regularizers, name)(value)
        state = term.init(PARAMS)
        for _ in range(2):
            updates, state = term.update(GRADS, state, PARAMS)
        return updates, state

    both = jax.jit(jax.vmap(run))(values)
    for index, value in enumerate(values):
        one = jax.tree.map(lambda leaf, index=index: leaf[index], both)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            one,
            run(float(value)),
        )


# --- on the inputs ------------------------------------------------------------------------------


def test_an_image_is_mirrored_or_as_it_was():
    x = some(400, 3, 4, 2)
    got = np.asarray(jax.jit(regularizers.flip)(x, jax.random.key(0)))
    mirrored = [(a == b[:, ::-1]).all() for a, b in zip(got, x, strict=True)]
    kept = [(a == b).all() for a, b in zip(got, x, strict=True)]
    assert np.array_equal(mirrored, np.logical_not(kept))
    assert 160 < sum(mirrored) < 240  # four deviations of a fair coin


def test_images_are_moved_by_every_distance_with_their_border_repeated():
    pixels = 2
    x = some(300, 4, 5, 2)
    got = np.asarray(jax.jit(regularizers.shift, static_argnums=2)(x, jax.random.key(0), pixels))
    widths = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    padded = np.pad(x, widths, mode="edge")
    moves = list(itertools.product(range(2 * pixels + 1), repeat=2))
    crops = np.stack([padded[:, r : r + 4, c : c + 5] for r, c in moves])
    matches = (crops == got).all(axis=(2, 3, 4))
    assert (matches.sum(axis=0) == 1).all()
    numbers = matches.sum(axis=1)  # 12 of each expected; four deviations are 14
    assert numbers.min() >= 1
    assert numbers.max() <= 26


def test_grey_images_without_channels_are_images():
    key = jax.random.key(1)
    x = some(6, 5, 4)
    terms = Regularization(flip=True, shift=1)
    augment = jax.jit(regularizers.augment, static_argnums=0)
    with_channel = augment(terms, x[..., None], key)[..., 0]
    np.testing.assert_array_equal(augment(terms, x, key), with_channel)


def test_noise_is_gaussian_of_the_given_deviation():
    x = np.full((200, 50), 3.0, np.float32)
    noise = jax.jit(regularizers.input_noise)(x, jax.random.key(0), 0.25) - x
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 4 * 0.25 / 100
    np.testing.assert_allclose(noise.std(), 0.25, rtol=4 / np.sqrt(2 * 10000))  # four deviations
    np.testing.assert_allclose((noise**4).mean() / noise.std() ** 4, 3, atol=4 * np.sqrt(24 / 1e4))


def test_what_is_no_image_or_takes_no_noise_is_refused():
    key = jax.random.key(0)
    table, tokens, images = jnp.zeros((4, 64)), jnp.zeros((4, 9), int), jnp.zeros((4, 8, 3, 1))
    for terms, x, text in (
        (
            Regularization(flip=True),
            table,
            "regularization.flip: examples of shape (64,) are no images (rows, columns, ...); "
            "switch it off, or give the data as images",
        ),
        (
            Regularization(shift=1),
            table,
            "regularization.shift: examples of shape (64,) are no images (rows, columns, ...); "
            "switch it off, or give the data as images",
        ),
        (
            Regularization(shift=3),
            images,
            "regularization.shift: 3 pixels move images of 8 x 3 out of sight; allowed is less "
            "than 3",
        ),
        (
            Regularization(input_noise=0.1),
            tokens,
            "regularization.input_noise: inputs of dtype int32 take no noise; switch it off",
        ),
    ):
        with pytest.raises(UserError) as error:
            jax.eval_shape(lambda x, terms=terms: regularizers.augment(terms, x, key), x)
        assert str(error.value) == text
