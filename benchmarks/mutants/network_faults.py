"""Faults inside the network: its layers, its first parameters, and what it reads."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.mutants.planting import REAL_INPUTS, Fault, classes, kernels, wired, with_rows
from benchmarks.mutants.setup import nothing

HIDDEN = ("mlp", "conv", "bag", "autoencoder", "siamese")  # families with a plain activation

# Hidden activations


def affine(setup, draw):
    if setup.family not in HIDDEN or setup.wiring.norm == "layer":
        return None
    return wired(setup, activation=nothing)


def softmax_hidden(setup, draw):
    if setup.family not in HIDDEN:
        return None
    return wired(setup, activation=lambda h: jax.nn.softmax(h, axis=-1))


def steep_sigmoid(setup, draw):
    """A unit that is saturated nearly everywhere."""
    if setup.family not in HIDDEN or setup.wiring.norm:
        return None
    return wired(setup, activation=lambda h: jax.nn.sigmoid(100 * h + 100))


def cubes(setup, draw):
    if setup.family not in HIDDEN or setup.wiring.norm:
        return None
    return wired(setup, activation=lambda h: h**3)


def deep_sigmoid(setup, draw):
    if setup.family != "mlp" or setup.wiring.norm:
        return None
    healthy = wired(setup, depth=int(draw.integers(6, 9)), activation=jax.nn.relu, dropout=0.0)
    return healthy, wired(healthy, activation=jax.nn.sigmoid)


def forgetful(setup, draw):
    """A logistic function instead of tanh where a state is carried along."""
    if setup.family != "recurrent" or setup.data.kind == "next":
        return None
    if setup.data.form != "tokens":
        return None

    def padded(x, y):
        x = np.concatenate([x, np.zeros((len(x), 40), x.dtype)], 1)
        return x, y

    healthy = wired(with_rows(setup, padded), pool="mean", cell="simple")
    return healthy, wired(healthy, pool="last")


# First parameters


def scaled_start(setup, factor):
    return replace(setup, start=lambda params: kernels(params, lambda w: w * factor))


def small_start(setup, draw):
    if setup.family not in ("mlp", "conv", "autoencoder", "bag", "factors") or setup.wiring.norm:
        return None
    return scaled_start(setup, 10 ** draw.uniform(-4, -2.5))


def large_start(setup, draw):
    if setup.wiring.norm or setup.family == "vae":
        return None
    return scaled_start(setup, draw.uniform(15, 60))


def standard_normal_start(setup, draw):
    """Every kernel is standard normal, whatever the number of inputs."""
    if setup.wiring.norm or setup.family not in (*HIDDEN, "recurrent"):
        return None
    seed = int(draw.integers(1000))

    def start(params):
        leaves, tree = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.key(seed), len(leaves))
        drawn = [
            3 * jax.random.normal(key, leaf.shape) if leaf.ndim > 1 else leaf
            for key, leaf in zip(keys, leaves, strict=True)
        ]
        return jax.tree.unflatten(tree, drawn)

    return replace(setup, start=start)


def growing(setup, draw):
    """Each of many layers multiplies the signal."""
    if setup.family != "mlp" or setup.wiring.norm:
        return None
    deep = wired(setup, depth=int(draw.integers(7, 10)), activation=jax.nn.relu, dropout=0.0)
    return deep, scaled_start(deep, draw.uniform(3, 6))


def growing_blocks(setup, draw):
    """Residual branches without normalization that start far too strong."""
    if setup.family != "residual":
        return None
    deep = wired(setup, depth=6, norm="")
    return deep, scaled_start(deep, draw.uniform(3, 6))


def constant_start(setup, draw):
    if setup.family not in (*HIDDEN, "recurrent", "factors"):
        return None
    value = draw.uniform(0.01, 0.1)
    return replace(setup, start=lambda params: kernels(params, lambda w: jnp.full_like(w, value)))


def zero_start(setup, draw):
    if setup.family not in (*HIDDEN, "factors"):
        return None
    return replace(setup, start=lambda params: kernels(params, jnp.zeros_like))


def same_columns(setup, draw):
    """One column was drawn and repeated."""
    if setup.family not in HIDDEN:
        return None

    def repeated(w):
        return jnp.broadcast_to(w[..., :1], w.shape)

    return replace(setup, start=lambda params: kernels(params, repeated))


def dead_units(setup, draw):
    """Biases so low that no row ever activates a unit."""
    if setup.family not in ("mlp", "conv", "bag", "autoencoder") or setup.wiring.norm:
        return None
    healthy = wired(setup, activation=jax.nn.relu)
    bias = draw.uniform(8, 20)

    def start(params):
        return jax.tree.map(lambda leaf: leaf - bias if leaf.ndim == 1 else leaf, params)

    return healthy, replace(healthy, start=start)


def dead_layer(setup, draw):
    """Activations are shifted down before ReLU."""
    if setup.family not in ("mlp", "conv", "bag", "autoencoder") or setup.wiring.norm:
        return None
    shift = draw.uniform(6, 12)
    healthy = wired(setup, activation=jax.nn.relu)
    return healthy, wired(healthy, activation=lambda h: jax.nn.relu(h - shift))


# Size and noise


def narrow(setup, draw):
    if setup.family not in ("mlp", "recurrent", "bag", "siamese", "conv", "residual"):
        return None
    if setup.wiring.norm == "layer":  # of one unit it is 0
        return None
    return wired(setup, width=1)


def narrow_code(setup, draw):
    if setup.family not in ("autoencoder", "vae"):
        return None
    return wired(setup, code=1)


def droppable(setup):
    return setup.family not in ("residual", "factors", "vae", "siamese")


def share_to_keep(setup, draw):
    """The share to keep was passed as the share to drop."""
    if not droppable(setup):
        return None
    rate = float(draw.uniform(0.03, 0.1))
    return wired(setup, dropout=rate), wired(setup, dropout=1 - rate / 2)


def dropout_in_evaluation(setup, draw):
    if not droppable(setup):
        return None
    healthy = wired(setup, dropout=float(draw.uniform(0.5, 0.7)))
    return healthy, wired(healthy, dropout_always=True)


def one_dropout_key(setup, draw):
    """The same units are dropped at every step: the key is made inside the function."""
    if not droppable(setup):
        return None
    healthy = wired(setup, dropout=float(draw.uniform(0.5, 0.7)))
    return healthy, wired(healthy, dropout_key=int(draw.integers(1, 100)))


# Batch normalization


def normalized(setup):
    """With batch normalization, which makes up for inputs that are off their scale."""
    if setup.family not in ("mlp", "conv"):
        return None
    moved = with_rows(setup, lambda x, y: (x * np.float32(4) + np.float32(3), y))
    return wired(moved, norm="batch", dropout=0.0)


def statistics_dropped(setup, draw):
    healthy = normalized(setup)
    return healthy and (healthy, replace(healthy, carry=lambda before, after: before))


def statistics_too_slow(setup, draw):
    healthy = normalized(setup)
    return healthy and (healthy, wired(healthy, momentum=0.99999))


def modes_swapped(setup, draw):
    healthy = normalized(setup)
    return healthy and (healthy, replace(healthy, mode=lambda train: not train))


# What gradients do not pass


def cut(setup, between):
    if setup.family not in (
        "recurrent",
        "autoencoder",
        "bag",
        "mlp",
        "conv",
        "siamese",
        "attention",
    ):
        return None
    if setup.family in ("mlp", "conv"):
        setup = wired(setup, width=int(setup.wiring.width // 8) * 4 // 2, depth=1)
    return setup, wired(setup, between=between)


def stopped(setup, draw):
    return cut(setup, jax.lax.stop_gradient)


def rounded(setup, draw):
    return cut(setup, jnp.round)


def signs(setup, draw):
    return cut(setup, lambda h: (h > 0).astype(h.dtype))


def largest(setup, draw):
    return cut(setup, lambda h: jax.nn.one_hot(h.argmax(-1), h.shape[-1]))


def rounded_outputs(setup, draw):
    if setup.data.kind != "regression":
        return None
    return wired(setup, final=jnp.round)


def decided_outputs(setup, draw):
    """The loss is shown decisions instead of logits."""
    if not classes(setup) or setup.loss_name in ("picked_probability", "categorical"):
        return None
    return wired(setup, final=lambda o: jax.nn.one_hot(o.argmax(-1), o.shape[-1]))


# What is read


def inverted_mask(setup, draw):
    if setup.data.form != "tokens" or setup.wiring.pool != "mean":
        return None
    return wired(setup, seen=lambda tokens: tokens == 0)


def first_step(setup, draw):
    """Only the first step is read, the others are repeated from it."""
    if setup.data.form not in ("sequence", "tokens"):
        return None
    return replace(setup, look=lambda x: jnp.broadcast_to(x[:, :1], x.shape))


def zeroed_inputs(setup, draw):
    """A mask for augmentation, at full strength."""
    if setup.data.form not in REAL_INPUTS:
        return None
    return replace(setup, look=lambda x: x * 0.0)


def clipped_inputs(setup, draw):
    """Inputs are clipped to a range in which none of them lies."""
    if setup.data.form not in REAL_INPUTS:
        return None
    return replace(setup, look=lambda x: jnp.clip(x, 5.0, 10.0))


def beyond_the_table(setup, draw):
    """Token numbers go on behind those of another vocabulary."""
    if setup.data.form != "tokens" or setup.style != "plain":
        return None
    return replace(setup, look=lambda x: x + setup.wiring.vocabulary)


def small_table(setup, draw):
    """The table has fewer rows than there are tokens: the others are all its last row."""
    if setup.data.form not in ("tokens", "text") or setup.style != "plain":
        return None
    return wired(setup, vocabulary=2)


def behind_the_table(setup, draw):
    """As above, where a look-up behind the end is NaN: that is what jnp.take gives."""
    if setup.data.form != "tokens" or setup.style == "plain":
        return None
    return replace(setup, look=lambda x: x + setup.wiring.vocabulary // 2)


def along_the_batch(setup, draw):
    if setup.family != "recurrent":
        return None
    return wired(setup, time_axis=0)


def positions_of_rows(setup, draw):
    if setup.family != "attention":
        return None
    return wired(setup, positions="rows")


def centred_by_batch(setup, draw):
    """Each output less the mean of the batch."""
    if setup.data.kind != "regression" or setup.family == "vae" or setup.data.outputs > 1:
        return None
    return wired(setup, final=lambda o: (o - o.mean(0)) / (jnp.abs(o).sum(0) + 1e-6))


def no_causal_mask(setup, draw):
    if setup.data.form != "text" or setup.family != "attention":
        return None
    return wired(setup, causal=False)


UNIT_SATURATED = ("vanishing_gradients", "dying_relu")
SMALL = ("vanishing_gradients", "learning_rate_too_low", "undertrained", "constant_initialization")
LARGE = ("exploding_gradients",)
NO_GRADIENT = ("parameters_not_updated", "vanishing_gradients", "wrong_gradient")
UNSEEN = ("no_signal", "gradient_blocked", "parameters_not_updated")
NETWORK_FAULTS = [
    Fault(
        "hidden_activation_missing", "affine", affine, ("insufficient_capacity",), where="hidden"
    ),
    Fault(
        "hidden_activation_mismatch",
        "softmax",
        softmax_hidden,
        ("vanishing_gradients",),
        where="hidden",
    ),
    Fault("hidden_activation_mismatch", "steep", steep_sigmoid, UNIT_SATURATED, where="hidden"),
    Fault("hidden_activation_mismatch", "cubes", cubes, ("exploding_gradients",), where="hidden"),
    Fault(
        "vanishing_gradients",
        "deep_sigmoid",
        deep_sigmoid,
        ("hidden_activation_mismatch",),
        where="hidden",
    ),
    Fault("vanishing_gradients", "padding_last", forgetful, ("inputs_ignored",), where="steps"),
    Fault("initialization_too_small", "scaled", small_start, SMALL, where="start"),
    Fault("initialization_too_large", "scaled", large_start, LARGE, where="start"),
    Fault("initialization_too_large", "normal", standard_normal_start, LARGE, where="start"),
    Fault("exploding_gradients", "layers", growing, ("initialization_too_large",), where="start"),
    Fault(
        "exploding_gradients",
        "blocks",
        growing_blocks,
        ("initialization_too_large",),
        where="start",
    ),
    Fault("constant_initialization", "constant", constant_start, where="start"),
    Fault(
        "constant_initialization", "zero", zero_start, ("initialization_too_small",), where="start"
    ),
    Fault("constant_initialization", "columns", same_columns, where="start"),
    Fault(
        "dying_relu",
        "biases",
        dead_units,
        ("parameters_not_updated", "vanishing_gradients"),
        where="start",
    ),
    Fault(
        "dying_relu",
        "shifted",
        dead_layer,
        ("hidden_activation_mismatch", "vanishing_gradients"),
        where="hidden",
    ),
    Fault(
        "insufficient_capacity", "narrow", narrow, ("hidden_activation_missing",), where="hidden"
    ),
    Fault("insufficient_capacity", "code", narrow_code, where="hidden"),
    Fault("excessive_dropout", "keep", share_to_keep, where="dropout"),
    Fault("excessive_dropout", "evaluation", dropout_in_evaluation, where="dropout"),
    Fault("excessive_dropout", "one_key", one_dropout_key, where="dropout"),
    Fault("batch_statistics_not_updated", "dropped", statistics_dropped, where="normalization"),
    Fault("batch_statistics_not_updated", "too_slow", statistics_too_slow, where="normalization"),
    Fault("batch_statistics_not_updated", "modes", modes_swapped, where="normalization"),
    Fault("gradient_blocked", "stopped", stopped, NO_GRADIENT, where="hidden"),
    Fault("gradient_blocked", "rounded", rounded, NO_GRADIENT, where="hidden"),
    Fault("gradient_blocked", "signs", signs, NO_GRADIENT, where="hidden"),
    Fault("gradient_blocked", "largest", largest, NO_GRADIENT, where="hidden"),
    Fault("gradient_blocked", "outputs", rounded_outputs, NO_GRADIENT, where="last layer"),
    Fault("gradient_blocked", "decisions", decided_outputs, NO_GRADIENT, where="last layer"),
    Fault("inputs_ignored", "mask", inverted_mask, UNSEEN, where="steps"),
    Fault("inputs_ignored", "first_step", first_step, UNSEEN, where="inputs"),
    Fault("inputs_ignored", "zeroed", zeroed_inputs, UNSEEN, where="inputs"),
    Fault("inputs_ignored", "clipped", clipped_inputs, UNSEEN, where="inputs"),
    Fault("inputs_ignored", "beyond_table", beyond_the_table, UNSEEN, where="embedding"),
    Fault("inputs_ignored", "small_table", small_table, UNSEEN, where="embedding"),
    Fault(
        "numerical_instability",
        "behind_table",
        behind_the_table,
        ("inputs_ignored", "nonfinite_data"),
        where="embedding",
    ),
    Fault("loss_axis_error", "along_batch", along_the_batch, ("inputs_ignored",), where="steps"),
    Fault("loss_axis_error", "row_positions", positions_of_rows, (), where="steps"),
    Fault(
        "loss_axis_error",
        "centred",
        centred_by_batch,
        ("output_range_excludes_targets",),
        where="last layer",
    ),
    Fault("leaked_targets", "not_causal", no_causal_mask, (), "last", "steps"),
]
