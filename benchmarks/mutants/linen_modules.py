"""Networks as modules of Flax Linen, called as `module(x, train)`."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from benchmarks.mutants.plain import kept
from benchmarks.mutants.setup import Wiring


class Dropped(nn.Module):
    """The last layer behind dropout."""

    wiring: Wiring

    @nn.compact
    def __call__(self, h: Any, train: bool) -> Any:
        w = self.wiring
        if w.dropout:
            key = None
            if w.dropout_key is not None or not self.has_rng("dropout"):
                key = jax.random.key(w.dropout_key or 0)
            off = not (train or w.dropout_always)
            h = nn.Dropout(w.dropout)(h, deterministic=off, rng=key)
        return w.final(nn.Dense(w.outputs)(h))


def normalized(wiring: Wiring, h: Any, train: bool) -> Any:
    if wiring.norm == "batch":
        return nn.BatchNorm(use_running_average=not train, momentum=wiring.momentum)(h)
    return nn.LayerNorm()(h) if wiring.norm == "layer" else h


class Mlp(nn.Module):
    wiring: Wiring

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        w = self.wiring
        h = x.reshape(len(x), -1)
        for i in range(w.depth):
            h = nn.Dense(w.width, kernel_init=nn.initializers.he_normal())(h)
            h = w.activation(normalized(w, h, train))
            h = w.between(h) if i == 0 else h
        return Dropped(w)(h, train)


class Residual(nn.Module):
    """Blocks with normalization first (He et al. 2016)."""

    wiring: Wiring

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        w = self.wiring
        h = w.between(nn.Dense(w.width)(x.reshape(len(x), -1)))
        for _ in range(w.depth):
            z = w.activation(nn.Dense(w.width)(normalized(w, h, train)))
            h = h + nn.Dense(w.width, kernel_init=nn.initializers.normal(0.05))(z)
        return Dropped(w)(h, train)


class Convolutional(nn.Module):
    wiring: Wiring

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        w = self.wiring
        channels = max(1, w.width // 4)
        h = normalized(w, nn.Conv(channels, (3, 3))(x), train)
        h = nn.max_pool(w.between(w.activation(h)), (2, 2), (2, 2))
        h = w.activation(nn.Conv(channels, (3, 3))(h))
        return Dropped(w)(h.reshape(len(x), -1), train)


CELLS = {"simple": nn.SimpleCell, "gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}


class Recurrent(nn.Module):
    wiring: Wiring

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        w = self.wiring
        seen = w.seen(x) if w.vocabulary and w.pool == "mean" else None
        h = nn.Embed(w.vocabulary, 16)(x) if w.vocabulary else x
        h = nn.RNN(CELLS[w.cell](w.width), time_major=w.time_axis == 0)(h)
        return Dropped(w)(kept(w, w.between(h), seen), train)


class Attentive(nn.Module):
    wiring: Wiring

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        w = self.wiring
        seen, mask = None, None
        if w.causal:
            mask = nn.make_causal_mask(jnp.ones(x.shape[:2]))
        elif w.vocabulary:
            seen = w.seen(x)
            mask = seen[:, None, None, :]
        h = nn.Embed(w.vocabulary, w.width)(x) if w.vocabulary else nn.Dense(w.width)(x)
        counted = x.shape[1] if w.positions == "steps" else x.shape[0]
        places = nn.Embed(max(counted, 1000), w.width)(jnp.arange(counted))
        h = h + (places if w.positions == "steps" else places[:, None])
        h = nn.LayerNorm()(h + nn.MultiHeadDotProductAttention(2)(h, mask=mask))
        h = w.between(w.activation(nn.Dense(2 * w.width)(h)))
        return Dropped(w)(kept(w, h, seen), train)


class Bag(nn.Module):
    wiring: Wiring

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        w = self.wiring
        seen = w.seen(x)[..., None]
        h = (nn.Embed(w.vocabulary, w.width)(x) * seen).sum(1) / jnp.maximum(seen.sum(1), 1)
        return Dropped(w)(w.between(w.activation(nn.Dense(w.width)(h))), train)


class Siamese(nn.Module):
    wiring: Wiring

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        w = self.wiring
        first, second = nn.Dense(w.width), nn.Dense(w.width)
        a, b = (second(w.between(w.activation(first(x[:, i])))) for i in range(2))
        return Dropped(w)(jnp.abs(a - b), train)


class Autoencoder(nn.Module):
    wiring: Wiring

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        w = self.wiring
        code = nn.Dense(w.code)(w.activation(nn.Dense(w.width)(x)))
        return Dropped(w)(w.activation(nn.Dense(w.width)(w.between(code))), train)


def network(module):
    """`init` and `apply` of a module; its state is every collection but the parameters."""

    def functions(wiring, x):
        made = module(wiring)

        def init(key):
            first, second = jax.random.split(key)
            variables = made.init({"params": first, "dropout": second}, jnp.asarray(x[:2]), False)
            return variables["params"], {k: v for k, v in variables.items() if k != "params"}

        def apply(params, state, x, key, train):
            outputs, changed = made.apply(
                {"params": params, **state},
                x,
                train,
                rngs={} if key is None else {"dropout": key},
                mutable=list(state) if train else [],
            )
            return outputs, {**state, **changed}

        return init, apply

    return functions


NETWORKS = {
    "mlp": network(Mlp),
    "residual": network(Residual),
    "conv": network(Convolutional),
    "recurrent": network(Recurrent),
    "attention": network(Attentive),
    "bag": network(Bag),
    "siamese": network(Siamese),
    "autoencoder": network(Autoencoder),
}
