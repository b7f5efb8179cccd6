"""Recurrent networks against PyTorch: padding, carried state, and what is refused."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nnref.errors import UserError
from nnref.experiment.experiment import Experiment
from nnref.parts.initializers import constant, lsuv
from nnref.parts.losses import softmax_cross_entropy
from nnref.parts.models.cells import CELLS
from nnref.parts.models.recurrent import Recurrent
from nnref.parts.regularizers import Regularization
from nnref.training import train
from nnref.training.setup import from_experiment

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "recurrent.json").read_text())
rng = np.random.default_rng(0)


def build(inputs, outputs, *, seed=0, regularization=None, **arguments):
    key = partial(jax.random.key, impl="rbg")  # compiles in half the time of threefry
    streams = nnx.Rngs(params=key(seed), dropout=key(seed + 1))
    arguments = {"units": 4} | arguments
    return Recurrent(inputs, outputs, streams, regularization or Regularization(), **arguments)


def pure(model):
    """The graph, the weights, and the rest as plain arrays."""
    graph, *parts = nnx.split(model, nnx.Param, ...)
    return graph, *(nnx.to_pure_dict(nnx.as_pure(part)) for part in parts)


def numbers(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def close(given, expected, rtol=1e-6, atol=1e-6):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), given, expected)


# --- the cells ----------------------------------------------------------------------------------


def from_torch(cell, weights, suffix):
    """A direction's weights as nnref has them."""
    w, u, b, c = (
        np.asarray(weights[f"{name}_l{suffix}"])
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    bias = b + c
    if cell == "gru":
        (reset, update, from_input), from_state = np.split(b, 3), np.split(c, 3)
        bias = [reset + from_state[0], update + from_state[1], from_input, from_state[2]]
    return {"kernel": w.T, "recurrent_kernel": u.T, "bias": np.ravel(bias)}


def gradients_from_torch(cell, gradients, suffix):
    """Where nnref has one bias, PyTorch has two with the same gradient."""
    once = dict(gradients)
    last = once[f"bias_hh_l{suffix}"][-len(once[f"bias_hh_l{suffix}"]) // 3 :]
    once[f"bias_hh_l{suffix}"] = np.zeros_like(once[f"bias_hh_l{suffix}"])
    given = from_torch(cell, once, suffix)
    if cell == "gru":
        given["bias"][-len(last) :] = last
    return given


@pytest.mark.parametrize("case", ORACLE["labels"], ids=list(CELLS))
def test_padded_sequences_in_both_directions_equal_pytorch(case, float64):
    cell, x = case["cell"], np.asarray(case["x"])
    real = np.arange(x.shape[1]) < np.asarray(case["lengths"])[:, None]
    model = build((5, 3), 2, cell=cell, units=3, layers=2, bidirectional=True, padded=True)
    graph, _, rest = pure(model)

    def mapped(read, weights):
        layers = {
            depth: {"directions": {way: read(cell, weights, f"{depth}{end}")}}
            for depth in (0, 1)
            for way, end in ((0, ""),)
        }
        for depth in (0, 1):
            layers[depth]["directions"][1] = read(cell, weights, f"{depth}_reverse")
        head = {"kernel": np.transpose(weights["weight"]), "bias": np.asarray(weights["bias"])}
        return {"layers": layers, "head": head}

    def objective(params, x):
        masked = jnp.concatenate([x, real[..., None]], axis=-1)
        outputs = nnx.merge(graph, params, rest)(masked)
        return jnp.sum(outputs * np.asarray(case["weigh"])), outputs

    params = jax.tree.map(jnp.asarray, mapped(from_torch, case["weights"]))
    gradients, outputs = jax.grad(objective, argnums=(0, 1), has_aux=True)(params, jnp.asarray(x))
    close(outputs, np.asarray(case["outputs"]), atol=1e-12)
    close(gradients[0], mapped(gradients_from_torch, case["gradients"]), atol=1e-12)
    close(gradients[1], np.asarray(case["gradient_of_x"]), atol=1e-12)


@pytest.mark.parametrize("case", ORACLE["language"], ids=list(CELLS))
def test_a_tied_language_model_with_a_state_equals_pytorch(case, float64):
    cell, tokens = case["cell"], np.asarray(case["tokens"])
    model = build(
        (5,), 4, cell=cell, units=3, answer="each", embedding=3, tied=True, streams=len(tokens)
    )
    graph, _, rest = pure(model)
    for place, part in enumerate(case["before"]):
        rest["layers"][0]["directions"][0]["carried"][place] = jnp.asarray(part)

    def mapped(read, weights):
        return {
            "layers": {0: {"directions": {0: read(cell, weights, "0")}}},
            "embedding": np.asarray(weights["embedding"]),
            "bias": np.asarray(weights["bias"]),
        }

    def objective(params):
        module = nnx.merge(graph, params, rest)
        logits = module(tokens[:, :-1])
        loss = jnp.mean(softmax_cross_entropy(logits, tokens[:, 1:]))
        return loss, (logits, pure(module)[2])

    params = jax.tree.map(jnp.asarray, mapped(from_torch, case["weights"]))
    (loss, (logits, after)), gradients = jax.value_and_grad(objective, has_aux=True)(params)
    assert loss == pytest.approx(case["loss"], rel=1e-12)
    close(logits, np.asarray(case["logits"]), atol=1e-12)
    close(gradients, mapped(gradients_from_torch, case["gradients"]), atol=1e-12)
    carried = after["layers"][0]["directions"][0]["carried"]
    close(list(carried.values()), [np.asarray(part) for part in case["after"]], atol=1e-12)


# --- the network --------------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("both", [False, True], ids=["forward", "bidirectional"])
def test_shapes_and_number_of_parameters(cell, gates, layers, both):
    units, channels, outputs = 5, 3, 2

    def built(x, **arguments):
        arguments |= {"cell": cell, "units": units, "layers": layers, "bidirectional": both}
        model = build(x.shape[1:], outputs, **arguments)
        return model(x), nnx.state(model, nnx.Param)

    x = jnp.zeros((6, 7, channels))
    width = (1 + both) * units
    for answer, shape in (("last", (6, outputs)), ("each", (6, 7, outputs))):
        y, params = jax.eval_shape(partial(built, answer=answer), x)
        assert y.shape == shape
        expected, fan_in = 0, channels
        for _ in range(layers):
            # A GRU has one bias more: that behind the product with h, which its reset gate holds.
            own = gates * units * (fan_in + units + 1) + units * (cell == "gru")
            expected += (1 + both) * own
            fan_in = width
        expected += (width + 1) * outputs
        assert sum(p.size for p in jax.tree.leaves(params)) == expected


def test_number_of_parameters_of_language_models():
    def parameters(**arguments):
        model = partial(build, (7,), 11, cell="lstm", answer="each", units=6, **arguments)
        params = jax.eval_shape(lambda: nnx.state(model(), nnx.Param))
        return sum(p.size for p in jax.tree.leaves(params))

    lstm = 4 * 6 * (6 + 6 + 1)
    assert parameters(embedding=6) == 11 * 6 + lstm + 6 * 11 + 11
    assert parameters(embedding=6, tied=True) == 11 * 6 + lstm + 11
    assert parameters(embedding=6, vocabulary=30) == 30 * 6 + lstm + 6 * 11 + 11


@pytest.mark.parametrize("cell", CELLS)
def test_every_gate_is_drawn_on_its_own(cell):
    model = build((5, 8), 2, cell=cell, units=8)
    direction = model.layers[0].directions[0]
    gates = jnp.split(direction.recurrent_kernel[...], CELLS[cell].gates, axis=-1)
    for gate in gates:
        close(gate.T @ gate, np.eye(8), atol=1e-5)  # float32
    assert len({float(gate[0, 0]) for gate in gates}) == len(gates)
    bound = np.sqrt(6 / 16)  # Glorot's, of one gate
    assert 0.9 * bound < np.abs(direction.kernel[...]).max() <= bound


def test_the_forget_gate_starts_open_and_may_be_traced():
    def bias(**arguments):
        model = build((5, 3), 2, cell="lstm", bias_initializer=constant, **arguments)
        return model.layers[0].directions[0].bias[...].reshape(4, 4)

    other = np.float32(0.1)
    np.testing.assert_array_equal(bias()[:, 0], [other, 1, other, other])
    np.testing.assert_array_equal(bias(forget_bias=0.0)[:, 0], [other, 0, other, other])
    several = jax.vmap(lambda value: bias(forget_bias=value))(jnp.array([-1.0, 2.0]))
    np.testing.assert_array_equal(several[:, 1], [[-1] * 4, [2] * 4])


@pytest.mark.parametrize("cell", CELLS)
def test_the_answer_at_a_step_knows_nothing_of_what_comes_after(cell):
    model = build((6,), 5, cell=cell, answer="each", embedding=4, layers=2)
    graph, params, rest = pure(model)
    tokens = rng.integers(0, 5, (3, 7))

    def losses(vectors):
        """Of every step, where each token of each row has a vector of its own."""
        own = params | {"embedding": vectors.reshape(-1, 4)}
        places = jnp.arange(18).reshape(3, 6)
        logits = nnx.merge(graph, own, rest)(places)
        return -jnp.sum(jax.nn.log_softmax(logits) * jax.nn.one_hot(tokens[:, 1:], 5), axis=-1)

    vectors = params["embedding"][tokens[:, :-1]]
    depends = np.abs(jax.jacobian(losses)(vectors)).sum(axis=-1) > 0  # row, step, row, step
    for row in range(3):
        np.testing.assert_array_equal(depends[row, :, row], np.tril(np.ones((6, 6), bool)))
        for other in {0, 1, 2} - {row}:  # and rows do not see each other
            assert not depends[row, :, other].any()


@pytest.mark.parametrize("arguments", [{}, {"bidirectional": True}, {"answer": "each"}], ids=str)
def test_examples_of_a_batch_do_not_see_each_other(arguments):
    model = build((6, 3), 2, cell="gru", layers=2, **arguments)
    x = numbers(5, 6, 3)
    close(model(x), jnp.concatenate([model(row[None]) for row in x]))


def test_the_way_back_reads_from_the_end():
    model = build((6, 3), 2, cell="lstm", answer="each", bidirectional=True)
    x = numbers(1, 6, 3)
    there, back = model.layers[0].directions
    h = [np.asarray(each(each.project(x.swapaxes(0, 1)), None)[1]) for each in (there, back)]
    for name in ("kernel", "recurrent_kernel", "bias"):
        getattr(back, name)[...] = getattr(there, name)[...]
    turned = back(back.project(x[:, ::-1].swapaxes(0, 1)), None)[1]
    close(turned[::-1], h[0])
    assert not np.allclose(h[0], h[1])


def test_tokens_are_looked_up_whether_there_are_many_or_few():
    model = build((6,), 5, cell="lstm", embedding=4, vocabulary=7)
    direction, vectors = model.layers[0].directions[0], model.embedding[...]
    tokens = rng.integers(0, 7, (6, 3))
    expected = np.asarray(vectors, np.float64)[tokens] @ np.asarray(direction.kernel[...])
    for part in (tokens, tokens[:1]):
        given = direction.look_up(part, vectors)
        close(given, (expected + np.asarray(direction.bias[...]))[: len(part)])


def test_dropout_stands_behind_every_layer_and_not_within():
    silenced = Regularization(dropout=0.5)
    arguments = {"cell": "rnn", "units": 400, "layers": 2, "answer": "each"}
    model = build((6, 3), 400, regularization=silenced, **arguments)
    x, layer = numbers(2, 6, 3), model.layers[0]
    from_input = layer.directions[0].project(x.swapaxes(0, 1))
    whole = layer.directions[0](from_input, None)[1]
    dropped = layer(x.swapaxes(0, 1), None)[1]
    zero = np.asarray(dropped == 0)
    assert np.mean(zero) == pytest.approx(0.5, abs=0.1)
    close(dropped[~zero], 2 * whole[~zero])
    model.eval()
    close(model(x), build((6, 3), 400, **arguments)(x))


def test_the_rate_of_dropout_may_be_traced():
    def mean(rate):
        model = build((6, 3), 2, cell="gru", units=50, regularization=Regularization(dropout=rate))
        return jnp.mean(model.layers[0](jnp.ones((6, 20, 3)), None)[0] == 0)

    rates = jnp.array([0.0, 0.2, 0.8])
    close(jax.jit(jax.vmap(mean))(rates), rates, atol=0.1)


# --- padding ------------------------------------------------------------------------------------


def padded_task(tokens=False, **arguments):
    """A task of padded sequences of several lengths, with other values behind their end."""
    lengths = np.array([6, 1, 4, 3, 2, 5, 6, 2])
    real = np.arange(6) < lengths[:, None]
    x = rng.integers(0, 5, (8, 6)) if tokens else rng.normal(size=(8, 6))
    model = {"name": "recurrent", "cell": "lstm", "units": 5, "layers": 2, "padded": True}
    model |= {"embedding": 3, "vocabulary": 5} if tokens else {}
    experiment = Experiment(
        data={"name": "temporal_parity", "steps": 6},
        model=model | arguments,
        loss="softmax_cross_entropy",
        optimizer={"name": "sgd", "learning_rate": 0.5},
        batch_size=8,
        epochs=1,
    )
    return experiment, x, real, np.arange(8) % 2


def steps_of(experiment):
    """A function of padded sequences that gives loss and weights after one training step."""
    _, setup, _ = from_experiment(experiment)
    functions, optimizer = setup(experiment.hyperparameters)
    key = jax.random.key(0)

    @jax.jit
    def step(x, y):
        params, model_state = functions.init(key)
        state = train.TrainState(params, model_state, optimizer.init(params), key, *(None,) * 4)
        state, sums = train.train_step(functions, optimizer, state, x, y, key)
        return sums["loss"], state.params

    def stepped(x, real, y):
        both = np.stack([x, real], axis=2)
        return step(both.astype(np.int32 if x.dtype.kind == "i" else np.float32), y)

    return stepped


@pytest.mark.parametrize(
    ("cell", "both", "tokens"),
    [("lstm", True, False), ("gru", False, True), ("rnn", True, True), ("lstm", False, False)],
)
def test_a_changed_padded_value_changes_nothing(cell, both, tokens):
    experiment, x, real, y = padded_task(tokens, cell=cell, bidirectional=both)
    stepped = steps_of(experiment)
    wild = np.where(real, x, 4 if tokens else np.inf)
    loss, params = stepped(np.where(real, x, 0), real, y)
    other_loss, others = stepped(wild, real, y)
    assert loss == other_loss
    jax.tree.map(np.testing.assert_array_equal, params, others)
    first = np.arange(6) == 0  # of real steps each does
    assert stepped((x + first) % 5 if tokens else x + first, real, y)[0] != loss


@pytest.mark.parametrize("cell", CELLS)
def test_padding_is_as_if_the_sequence_were_shorter(cell):
    model = build((6, 3), 2, cell=cell, layers=2, bidirectional=True, padded=True)
    x = numbers(1, 6, 3).at[..., -1].set(1)
    x = x.at[:, 4:, -1].set(0)
    close(model(x), model(x[:, :4]))
    assert not np.allclose(model(x), model(x.at[..., -1].set(1)))


# --- windows of truncated backpropagation ---------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
def test_two_windows_are_one_long_one(cell):
    arguments = {"cell": cell, "layers": 2, "answer": "each", "embedding": 3}
    model, whole = build((4,), 5, streams=3, **arguments), build((8,), 5, **arguments)
    tokens = rng.integers(0, 5, (3, 8))
    expected = whole(tokens)
    for _ in range(2):
        windows = [model(tokens[:, :4]), model(tokens[:, 4:])]
        close(jnp.concatenate(windows, axis=1), expected)
        assert not np.allclose(model(tokens[:, :4]), windows[0])
        model.restart()


def test_steps_one_by_one_are_a_window():
    arguments = {"cell": "lstm", "answer": "each", "embedding": 3}
    model, whole = build((8,), 5, streams=1, **arguments), build((8,), 5, **arguments)
    model.eval()
    tokens = rng.integers(0, 5, (1, 8))
    steps = [model(tokens[:, t : t + 1]) for t in range(8)]
    close(jnp.concatenate(steps, axis=1), whole(tokens))


def test_no_gradient_passes_from_window_to_window():
    model = build((4, 2), 3, cell="lstm", answer="each", streams=2)
    graph, params, rest = pure(model)
    x = numbers(2, 8, 2)

    def second(x):
        module = nnx.merge(graph, params, rest)
        module(x[:, :4])
        return jnp.sum(module(x[:, 4:]) ** 2)

    gradient = jax.grad(second)(x)
    assert not gradient[:, :4].any()
    assert (gradient[:, 4:] != 0).any(axis=(0, 2)).all()


def language_experiment(**plan):
    return Experiment(
        data={"name": "copy_memory", "examples": 24, "valid": 0.5, "test": 0, "delay": 1},
        model={"name": "recurrent", "cell": "gru", "units": 4, "embedding": 4, "tied": True}
        | {"answer": "each", "streams": 4},
        loss="softmax_cross_entropy",
        optimizer={"name": "sgd", "learning_rate": 0.1},
        epochs=1,
        **{"batch_size": 4, "shuffle": False} | plan,
    )


def test_training_carries_the_state_from_batch_to_batch():
    experiment = language_experiment()
    task, setup, _ = from_experiment(experiment)
    functions, _ = setup(experiment.hyperparameters)
    params, model_state = functions.init(jax.random.key(0))
    key, x = jax.random.key(1), task.train.x
    first, carried = functions.apply(params, model_state, x[:4], key, True)
    second, _ = functions.apply(params, carried, x[4:8], key, True)
    long = np.concatenate([x[:4], x[4:8]], axis=1)
    whole, _ = functions.apply(params, model_state, long, key, True)
    close(jnp.concatenate([first, second], axis=1), whole)


def test_other_numbers_of_rows_are_refused_in_words():
    model = build((4, 2), 3, cell="gru", streams=3)
    with pytest.raises(UserError) as error:
        model(numbers(2, 4, 2))
    assert str(error.value) == (
        "model.streams: 3 rows go on from batch to batch, and this batch has 2; give batch_size "
        "that number, and every split a multiple of it"
    )


# --- errors in words ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "arguments", "words"),
    [
        ((5, 2), {"streams": 2, "bidirectional": True}, "model.bidirectional: streams go forward"),
        ((5, 2), {"padded": True, "answer": "each"}, "model.padded: with an answer for each step"),
        ((5, 2), {"vocabulary": 4}, "model.vocabulary: only tokens have one; give embedding"),
        ((5, 2), {"tied": True}, "model.tied: .* 4 units and 3 classes, .* None and 3 tokens"),
        ((5,), {"tied": True, "embedding": 5}, "model.tied: .* the embedding width 5 and 3 tokens"),
        ((5,), {"tied": True, "embedding": 4, "vocabulary": 9}, "model.tied: .* 9 tokens; both"),
        ((5, 2), {"forget_bias": 1.0}, "model.forget_bias: gru has no forget gate; leave it out"),
        ((5, 2), {"kernel_initializer": lsuv}, "model: lsuv looks at one step"),
        ((5, 2), {"recurrent_initializer": lsuv}, "model: lsuv looks at one step"),
        ((5, 2), {"embedding": 4}, r"model.embedding: examples have shape \(5, 2\), tokens \(st"),
        ((5,), {"embedding": 4, "padded": True}, r"model.embedding: .* \(5,\), tokens \(steps, 2"),
        ((5,), {}, r"model: recurrent takes .* \(5,\); give tokens an embedding"),
        ((5, 2, 2), {}, r"model: recurrent takes .* \(5, 2, 2\); reshape them"),
        ((5, 1), {"padded": True}, r"model.padded: examples of shape \(5, 1\) have one channel"),
    ],
)
def test_what_contradicts_itself_is_refused_in_words(inputs, arguments, words):
    with pytest.raises(UserError, match=words):
        build(inputs, 3, cell="gru", **arguments)


@pytest.mark.parametrize(
    ("terms", "arguments", "words"),
    [
        ({"normalization": "layer"}, {}, "regularization.normalization: recurrent layers have"),
        ({"input_noise": 0.1}, {"padded": True}, "regularization.input_noise: it would blur"),
    ],
)
def test_regularization_that_means_nothing_here_is_refused(terms, arguments, words):
    with pytest.raises(UserError, match=words):
        build((5, 2), 3, cell="rnn", regularization=Regularization(**terms), **arguments)


def test_what_fits_together_is_not_refused():
    terms = Regularization(input_noise=0.1, dropout=0.1)
    build((5, 2), 3, cell="lstm", regularization=terms, forget_bias=0.5, streams=2)
    build((5, 2), 3, cell="gru", embedding=4, padded=True, vocabulary=9)
    build((5,), 3, cell="gru", embedding=4, tied=True, vocabulary=3)
    build((5,), 3, cell="gru", units=2, bidirectional=True, embedding=4, tied=True)
