"""Networks as modules of Flax NNX, called as `module(x, train, rngs)`."""

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.mutants.plain import kept


def normalization(wiring, width, rngs):
    if wiring.norm == "batch":
        return nnx.BatchNorm(width, momentum=wiring.momentum, rngs=rngs)
    return nnx.LayerNorm(width, rngs=rngs) if wiring.norm == "layer" else None


def normalized(layer, h, train):
    if layer is None:
        return h
    if isinstance(layer, nnx.BatchNorm):
        return layer(h, use_running_average=not train)
    return layer(h)


class Dropped(nnx.Module):
    """The last layer behind dropout."""

    def __init__(self, wiring, width, rngs):
        self.wiring = wiring
        self.dropout = nnx.Dropout(wiring.dropout)
        self.head = nnx.Linear(width, wiring.outputs, rngs=rngs)

    def __call__(self, h, train, rngs):
        w = self.wiring
        if w.dropout_key is not None or rngs is None:
            rngs = nnx.Rngs(dropout=w.dropout_key or 0)
        off = not (train or w.dropout_always)
        h = self.dropout(h, deterministic=off, rngs=rngs) if w.dropout else h
        return w.final(self.head(h))


class Mlp(nnx.Module):
    def __init__(self, wiring, x, rngs):
        self.wiring = wiring
        sizes = [x.reshape(len(x), -1).shape[1], *[wiring.width] * wiring.depth]
        pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
        start = nnx.initializers.he_normal()
        self.layers = nnx.List([nnx.Linear(a, b, kernel_init=start, rngs=rngs) for a, b in pairs])
        self.norms = nnx.List([normalization(wiring, b, rngs) for _, b in pairs])
        self.out = Dropped(wiring, sizes[-1], rngs)

    def __call__(self, x, train, rngs):
        h = x.reshape(len(x), -1)
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            h = self.wiring.activation(normalized(norm, layer(h), train))
            if i == 0:
                h = self.wiring.between(h)
        return self.out(h, train, rngs)


class Convolutional(nnx.Module):
    def __init__(self, wiring, x, rngs):
        self.wiring = wiring
        channels = max(1, wiring.width // 4)
        self.first = nnx.Conv(x.shape[3], channels, (3, 3), rngs=rngs)
        self.norm = normalization(wiring, channels, rngs)
        self.second = nnx.Conv(channels, channels, (3, 3), rngs=rngs)
        flat = (x.shape[1] // 2) * (x.shape[2] // 2) * channels
        self.out = Dropped(wiring, flat, rngs)

    def __call__(self, x, train, rngs):
        w = self.wiring
        h = w.between(w.activation(normalized(self.norm, self.first(x), train)))
        h = nnx.max_pool(h, (2, 2), (2, 2))
        return self.out(w.activation(self.second(h)).reshape(len(x), -1), train, rngs)


CELLS = {"simple": nnx.SimpleCell, "gru": nnx.GRUCell, "lstm": nnx.OptimizedLSTMCell}


class Recurrent(nnx.Module):
    def __init__(self, wiring, x, rngs):
        self.wiring = wiring
        self.words = nnx.Embed(wiring.vocabulary, 16, rngs=rngs) if wiring.vocabulary else None
        features = 16 if wiring.vocabulary else x.shape[-1]
        cell = CELLS[wiring.cell](features, wiring.width, rngs=rngs)
        self.reader = nnx.RNN(cell, time_major=wiring.time_axis == 0)
        self.out = Dropped(wiring, wiring.width, rngs)

    def __call__(self, x, train, rngs):
        w = self.wiring
        seen = w.seen(x) if self.words is not None and w.pool == "mean" else None
        h = x if self.words is None else self.words(x)
        return self.out(kept(w, w.between(self.reader(h)), seen), train, rngs)


class Attentive(nnx.Module):
    """One block of attention with positions that are learned."""

    def __init__(self, wiring, x, rngs):
        self.wiring = wiring
        width = wiring.width
        if wiring.vocabulary:
            self.read = nnx.Embed(wiring.vocabulary, width, rngs=rngs)
        else:
            self.read = nnx.Linear(x.shape[-1], width, rngs=rngs)
        places = x.shape[1] if wiring.positions == "steps" else len(x)
        self.places = nnx.Embed(places, width, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(2, width, decode=False, rngs=rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.hidden = nnx.Linear(width, 2 * width, rngs=rngs)
        self.out = Dropped(wiring, 2 * width, rngs)

    def __call__(self, x, train, rngs):
        w = self.wiring
        seen, mask = None, None
        if w.causal:
            mask = nnx.make_causal_mask(jnp.ones(x.shape[:2]))
        elif w.vocabulary:
            seen = w.seen(x)
            mask = seen[:, None, None, :]
        if w.positions == "steps":
            places = self.places(jnp.arange(x.shape[1]))
        else:
            places = self.places(jnp.arange(x.shape[0]))[:, None]
        h = self.read(x) + places
        h = self.norm(h + self.attend(h, mask=mask))
        h = w.between(w.activation(self.hidden(h)))
        return self.out(kept(w, h, seen), train, rngs)


class Bag(nnx.Module):
    def __init__(self, wiring, x, rngs):
        self.wiring = wiring
        self.embed = nnx.Embed(wiring.vocabulary, wiring.width, rngs=rngs)
        self.hidden = nnx.Linear(wiring.width, wiring.width, rngs=rngs)
        self.out = Dropped(wiring, wiring.width, rngs)

    def __call__(self, x, train, rngs):
        w = self.wiring
        seen = w.seen(x)[..., None].astype(jnp.float32)
        mean = (self.embed(x) * seen).sum(1) / jnp.maximum(seen.sum(1), 1)
        return self.out(w.between(w.activation(self.hidden(mean))), train, rngs)


class Siamese(nnx.Module):
    def __init__(self, wiring, x, rngs):
        self.wiring = wiring
        self.first = nnx.Linear(x.shape[-1], wiring.width, rngs=rngs)
        self.second = nnx.Linear(wiring.width, wiring.width, rngs=rngs)
        self.out = Dropped(wiring, wiring.width, rngs)

    def code(self, x):
        return self.second(self.wiring.between(self.wiring.activation(self.first(x))))

    def __call__(self, x, train, rngs):
        return self.out((self.code(x[:, 0]) - self.code(x[:, 1])) ** 2, train, rngs)


class Factors(nnx.Module):
    def __init__(self, wiring, x, rngs):
        self.wiring = wiring
        rank = max(1, wiring.width // 8)
        start = nnx.initializers.normal(0.3)
        self.people = nnx.Embed(wiring.vocabulary, rank, embedding_init=start, rngs=rngs)
        self.things = nnx.Embed(wiring.vocabulary, rank, embedding_init=start, rngs=rngs)

    def __call__(self, x, train, rngs):
        people = self.wiring.between(self.people(x[:, 0]))
        return self.wiring.final(jnp.sum(people * self.things(x[:, 1]), -1, keepdims=True))


class Autoencoder(nnx.Module):
    def __init__(self, wiring, x, rngs):
        self.wiring = wiring
        n, width = x.shape[1], wiring.width
        self.encode = nnx.Linear(n, width, rngs=rngs)
        self.code = nnx.Linear(width, wiring.code, rngs=rngs)
        self.decode = nnx.Linear(wiring.code, width, rngs=rngs)
        self.out = Dropped(wiring, width, rngs)

    def __call__(self, x, train, rngs):
        w = self.wiring
        code = w.between(self.code(w.activation(self.encode(x))))
        return self.out(w.activation(self.decode(code)), train, rngs)


def functions(make):
    """`init` and `apply` of the module that `make(rngs)` returns."""
    graph, _, _ = nnx.split(make(nnx.Rngs(0)), nnx.Param, ...)

    def init(key):
        _, params, state = nnx.split(make(nnx.Rngs(key)), nnx.Param, ...)
        return params, state

    def apply(params, state, x, key, train):
        module = nnx.merge(graph, params, state, copy=True)
        outputs = module(x, train, None if key is None else nnx.Rngs(dropout=key))
        return outputs, nnx.split(module, nnx.Param, ...)[2]

    return init, apply


def network(module):
    return lambda wiring, x: functions(lambda rngs: module(wiring, jax.numpy.asarray(x), rngs))


NETWORKS = {
    "mlp": network(Mlp),
    "conv": network(Convolutional),
    "recurrent": network(Recurrent),
    "attention": network(Attentive),
    "bag": network(Bag),
    "siamese": network(Siamese),
    "factors": network(Factors),
    "autoencoder": network(Autoencoder),
}
