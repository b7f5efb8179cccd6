"""Networks as plain functions of dictionaries of arrays."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.mutants.setup import nothing


def dense_init(key, n_in, n_out, gain=2.0):
    return {
        "w": jax.random.normal(key, (n_in, n_out)) * np.sqrt(gain / n_in),
        "b": jnp.zeros(n_out),
    }


def dense(p, x):
    return x @ p["w"] + p["b"]


def drop(wiring, key, h, train):
    """Inverted dropout (Srivastava et al. 2014)."""
    if wiring.dropout == 0 or not (train or wiring.dropout_always):
        return h
    if wiring.dropout_key is not None or key is None:
        key = jax.random.key(wiring.dropout_key or 0)
    keep = jax.random.bernoulli(key, 1 - wiring.dropout, h.shape)
    return jnp.where(keep, h / (1 - wiring.dropout), 0)


def norm_init(wiring, width):
    params = {"scale": jnp.ones(width), "shift": jnp.zeros(width)} if wiring.norm else {}
    if wiring.norm != "batch":
        return params, {}
    return params, {"mean": jnp.zeros(width), "var": jnp.ones(width)}


def norm(wiring, p, state, h, train):
    """Batch or layer normalization, or none."""
    if wiring.norm == "":
        return h, state
    if wiring.norm == "layer":
        mean, var = h.mean(-1, keepdims=True), h.var(-1, keepdims=True)
    elif train:
        axes = tuple(range(h.ndim - 1))
        mean, var, m = h.mean(axes), h.var(axes), wiring.momentum
        state = {
            "mean": m * state["mean"] + (1 - m) * mean,
            "var": m * state["var"] + (1 - m) * var,
        }
    else:
        mean, var = state["mean"], state["var"]
    return p["scale"] * (h - mean) / jnp.sqrt(var + 1e-5) + p["shift"], state


def mlp(wiring, x):
    sizes = [int(np.prod(x.shape[1:])), *[wiring.width] * wiring.depth]

    def init(key):
        params, state = {}, {}
        keys = jax.random.split(key, wiring.depth + 1)
        for i in range(wiring.depth):
            scale, state[f"norm{i}"] = norm_init(wiring, wiring.width)
            params[f"layer{i}"] = dense_init(keys[i], sizes[i], sizes[i + 1]) | scale
        params["out"] = dense_init(keys[-1], sizes[-1], wiring.outputs, 1.0)
        return params, state

    def apply(params, state, x, key, train):
        h, after = x.reshape(len(x), -1), {}
        for i in range(wiring.depth):
            p = params[f"layer{i}"]
            h, after[f"norm{i}"] = norm(wiring, p, state[f"norm{i}"], dense(p, h), train)
            h = wiring.activation(h)
            if i == 0:
                h = wiring.between(h)
        return wiring.final(dense(params["out"], drop(wiring, key, h, train))), after

    return init, apply


def residual(wiring, x):
    n_in = int(np.prod(x.shape[1:]))

    def init(key):
        first, *keys, last = jax.random.split(key, 2 * wiring.depth + 2)
        blocks, state = [], []
        for a, b in zip(keys[::2], keys[1::2], strict=True):
            scale, running = norm_init(wiring, wiring.width)
            up = dense_init(a, wiring.width, wiring.width)
            blocks.append(
                {"norm": scale, "up": up, "down": dense_init(b, *[wiring.width] * 2, 0.1)}
            )
            state.append(running)
        return {
            "in": dense_init(first, n_in, wiring.width, 1.0),
            "blocks": blocks,
            "out": dense_init(last, wiring.width, wiring.outputs, 1.0),
        }, {"blocks": state}

    def apply(params, state, x, key, train):
        h, after = wiring.between(dense(params["in"], x.reshape(len(x), -1))), []
        for block, running in zip(params["blocks"], state["blocks"], strict=True):
            z, running = norm(wiring, block["norm"], running, h, train)
            h = h + dense(block["down"], wiring.activation(dense(block["up"], z)))
            after.append(running)
        return wiring.final(dense(params["out"], drop(wiring, key, h, train))), {"blocks": after}

    return init, apply


def conv2d(kernel, x):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def halved(h):
    """The largest of each two by two pixels."""
    return jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def conv(wiring, x):
    channels = max(1, wiring.width // 4)
    flat = (x.shape[1] // 2) * (x.shape[2] // 2) * channels

    def init(key):
        a, b, c = jax.random.split(key, 3)
        scale, running = norm_init(wiring, channels)
        return {
            "filters": {
                "w": jax.random.normal(a, (3, 3, x.shape[3], channels))
                * np.sqrt(2 / 9 / x.shape[3]),
                "b": jnp.zeros(channels),
                **scale,
            },
            "hidden": dense_init(b, flat, wiring.width),
            "head": dense_init(c, wiring.width, wiring.outputs, 1.0),
        }, {"filters": running}

    def apply(params, state, x, key, train):
        p = params["filters"]
        h, running = norm(wiring, p, state["filters"], conv2d(p["w"], x) + p["b"], train)
        h = wiring.between(wiring.activation(h))
        h = wiring.activation(dense(params["hidden"], halved(h).reshape(len(x), -1)))
        return wiring.final(dense(params["head"], drop(wiring, key, h, train))), {
            "filters": running
        }

    return init, apply


def simple_cell(p, h, x):
    h = jnp.tanh(x @ p["x"] + h @ p["h"] + p["b"])
    return h, h


def gru_cell(p, h, x):
    """Cho et al. 2014."""
    width = h.shape[-1]
    from_x, from_h = x @ p["x"] + p["b"], h @ p["h"]
    reset, update = (
        jax.nn.sigmoid(
            from_x[..., i * width : (i + 1) * width] + from_h[..., i * width : (i + 1) * width]
        )
        for i in range(2)
    )
    new = jnp.tanh(from_x[..., 2 * width :] + reset * from_h[..., 2 * width :])
    h = update * h + (1 - update) * new
    return h, h


def lstm_cell(p, carry, x):
    """Hochreiter and Schmidhuber 1997 with forget gates that start open."""
    h, c = carry
    i, f, g, o = jnp.split(x @ p["x"] + h @ p["h"] + p["b"], 4, -1)
    c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


CELLS = {"simple": (simple_cell, 1), "gru": (gru_cell, 3), "lstm": (lstm_cell, 4)}


def reading(wiring, x):
    """How steps become vectors: a table of tokens, or numbers as they are; with their number."""
    if wiring.vocabulary == 0:
        return lambda key: {}, lambda params, x: x, x.shape[-1]
    width = max(8, wiring.width // 2)

    def init(key):
        return {"table": 0.3 * jax.random.normal(key, (wiring.vocabulary, width))}

    return init, lambda params, x: params["table"][x], width


def kept(wiring, h, seen):
    """One vector of all steps, or each as it is."""
    if wiring.each_step:
        return h
    if wiring.pool == "last":
        return h[:, -1]
    if wiring.pool == "max":
        return h.max(1)
    weight = seen[..., None] if seen is not None else jnp.ones((*h.shape[:2], 1))
    return (h * weight).sum(1) / jnp.maximum(weight.sum(1), 1)


def recurrent(wiring, x):
    cell, gates = CELLS[wiring.cell]
    width = wiring.width
    words, vectors, n_in = reading(wiring, x)

    def init(key):
        a, b, c, d = jax.random.split(key, 4)
        square = [jax.random.orthogonal(k, width) for k in jax.random.split(b, gates)]
        return {
            "words": words(d),
            "cell": {
                "x": jax.random.normal(a, (n_in, gates * width)) * np.sqrt(1 / n_in),
                "h": jnp.concatenate(square, 1),
                "b": jnp.zeros(gates * width),
            },
            "out": dense_init(c, width, wiring.outputs, 1.0),
        }, {}

    def apply(params, state, x, key, train):
        seen = wiring.seen(x) if wiring.vocabulary and wiring.pool == "mean" else None
        steps = jnp.moveaxis(vectors(params["words"], x), wiring.time_axis, 0)
        zeros = jnp.zeros((steps.shape[1], width))
        start = (zeros, zeros) if wiring.cell == "lstm" else zeros
        _, h = jax.lax.scan(lambda h, x: cell(params["cell"], h, x), start, steps)
        h = wiring.between(jnp.moveaxis(h, 0, wiring.time_axis))
        h = drop(wiring, key, kept(wiring, h, seen), train)
        return wiring.final(dense(params["out"], h)), state

    return init, apply


def attention(wiring, x):
    width, steps = wiring.width, x.shape[1]
    words, vectors, n_in = reading(wiring, x)

    def init(key):
        a, b, c, d, e, f, g = jax.random.split(key, 7)
        places = steps if wiring.positions == "steps" else len(x)
        return {
            "words": words(a),
            "places": 0.1 * jax.random.normal(b, (places, width)),
            "in": dense_init(c, n_in, width, 1.0),
            "qkv": dense_init(d, width, 3 * width, 1.0),
            "mix": dense_init(e, width, width, 1.0),
            "up": dense_init(f, width, 2 * width),
            "out": dense_init(g, 2 * width, wiring.outputs, 1.0),
        }, {}

    def apply(params, state, x, key, train):
        seen = wiring.seen(x) if wiring.vocabulary and not wiring.each_step else None
        h = dense(params["in"], vectors(params["words"], x))
        if wiring.positions == "steps":
            h = h + params["places"][: x.shape[1]]
        else:
            h = h + params["places"][: x.shape[0], None]
        query, value, keys = jnp.split(dense(params["qkv"], h), 3, -1)
        scores = query @ jnp.swapaxes(keys, 1, 2) / np.sqrt(width)
        if wiring.causal:
            scores = jnp.where(jnp.tri(x.shape[1], dtype=bool), scores, -1e9)
        if seen is not None:
            scores = jnp.where(seen[:, None, :], scores, -1e9)
        h = h + dense(params["mix"], jax.nn.softmax(scores) @ value)
        h = wiring.between(wiring.activation(dense(params["up"], h)))
        h = drop(wiring, key, kept(wiring, h, seen), train)
        return wiring.final(dense(params["out"], h)), state

    return init, apply


def bag(wiring, x):
    """The mean of the vectors of all words."""
    words, vectors, n_in = reading(wiring, x)

    def init(key):
        a, b, c = jax.random.split(key, 3)
        return {
            "words": words(a),
            "hidden": dense_init(b, n_in, wiring.width),
            "out": dense_init(c, wiring.width, wiring.outputs, 1.0),
        }, {}

    def apply(params, state, x, key, train):
        weight = wiring.seen(x)[..., None]
        mean = (vectors(params["words"], x) * weight).sum(1) / jnp.maximum(weight.sum(1), 1)
        h = wiring.between(wiring.activation(dense(params["hidden"], mean)))
        return wiring.final(dense(params["out"], drop(wiring, key, h, train))), state

    return init, apply


def siamese(wiring, x):
    """One network for both of a pair; their distance by feature goes into a logistic unit."""
    tower, view = mlp(replace(wiring, outputs=wiring.width, final=nothing), x[:, 0])

    def init(key):
        a, b = jax.random.split(key)
        params, state = tower(a)
        return {"tower": params, "out": dense_init(b, wiring.width, wiring.outputs, 1.0)}, state

    def apply(params, state, x, key, train):
        rows = len(x)
        codes, state = view(params["tower"], state, jnp.concatenate([x[:, 0], x[:, 1]]), key, train)
        apart = jnp.abs(codes[:rows] - codes[rows:])
        return wiring.final(dense(params["out"], apart)), state

    return init, apply


def factors(wiring, x):
    """The product of a person's and a thing's vector (Koren et al. 2009)."""
    rank = max(1, wiring.width // 8)

    def init(key):
        a, b = jax.random.split(key)
        return {
            "people": 0.3 * jax.random.normal(a, (wiring.vocabulary, rank)),
            "things": 0.3 * jax.random.normal(b, (wiring.vocabulary, rank)),
            "mean": jnp.zeros(1),
        }, {}

    def apply(params, state, x, key, train):
        people, things = params["people"][x[:, 0]], params["things"][x[:, 1]]
        product = (wiring.between(people) * things).sum(-1, keepdims=True)
        return wiring.final(params["mean"] + product), state

    return init, apply


def autoencoder(wiring, x):
    width, n_in = wiring.width, x.shape[1]

    def init(key):
        a, b, c, d = jax.random.split(key, 4)
        return {
            "down": dense_init(a, n_in, width),
            "code": dense_init(b, width, wiring.code, 1.0),
            "up": dense_init(c, wiring.code, width),
            "out": dense_init(d, width, wiring.outputs, 1.0),
        }, {}

    def apply(params, state, x, key, train):
        code = wiring.between(dense(params["code"], wiring.activation(dense(params["down"], x))))
        h = drop(wiring, key, wiring.activation(dense(params["up"], code)), train)
        return wiring.final(dense(params["out"], h)), state

    return init, apply


def vae(wiring, x):
    """Kingma and Welling 2014; in evaluation the code is its mean."""
    width, n_in = wiring.width, x.shape[1]

    def init(key):
        a, b, c, d = jax.random.split(key, 4)
        return {
            "down": dense_init(a, n_in, width),
            "moments": dense_init(b, width, 2 * wiring.code, 1.0),
            "up": dense_init(c, wiring.code, width),
            "out": dense_init(d, width, wiring.outputs, 1.0),
        }, {}

    def apply(params, state, x, key, train):
        h = wiring.activation(dense(params["down"], x))
        mean, log_var = jnp.split(dense(params["moments"], h), 2, -1)
        code = mean
        if train:
            code = mean + jnp.exp(log_var / 2) * jax.random.normal(key, mean.shape)
        h = wiring.activation(dense(params["up"], wiring.between(code)))
        return (wiring.final(dense(params["out"], h)), mean, log_var), state

    return init, apply


NETWORKS = {
    "mlp": mlp,
    "residual": residual,
    "conv": conv,
    "recurrent": recurrent,
    "attention": attention,
    "bag": bag,
    "siamese": siamese,
    "factors": factors,
    "autoencoder": autoencoder,
    "vae": vae,
}
