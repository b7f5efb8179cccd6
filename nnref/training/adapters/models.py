"""Which library a model is of, as the module of its class says; no other one is imported."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nnref.errors import UserError
from nnref.internals import parameters_of
from nnref.training.adapters.arguments import KNOWN, required
from nnref.training.adapters.network import Network

LIBRARIES = ("flax.nnx", "flax.linen", "equinox", "keras", "haiku")
ALLOWED = (
    "a module of Flax (NNX or Linen) or Equinox, a keras.Model, what hk.transform gives, the class "
    "of such a module, or a function of rngs (NNX) or of a key (Equinox) that builds one"
)


def library_of(value: Any) -> str | None:
    """The library that a value, or a class, comes from."""
    classes = value.__mro__ if isinstance(value, type) else type(value).__mro__
    for each in classes:
        for library in LIBRARIES:
            if f"{each.__module__}.".startswith(f"{library}."):
                return library
    return None


def network_of(model: Any, x: Any) -> Network:
    """The network of a model of any library, or of a class or a function that builds one.

    Raises:
        UserError: for something else, or a class that needs arguments of its own.
    """
    one = model[0] if isinstance(model, tuple) and len(model) == 2 and model else model
    library = library_of(one) if library_of(model) is None else library_of(model)
    if library is not None and not isinstance(model, type):
        return adapted(library, model, lambda key: model, x)
    if not callable(model):
        raise UserError(f"model: a {type(model).__name__} is none that nnref knows; give {ALLOWED}")
    build, keyed = builder_of(model)
    if not keyed:
        return network_of(build(None), x)
    library = built_by(build)
    return adapted(library, None, build, x)


def adapted(library: str, model: Any, build: Callable[[Any], Any], x: Any) -> Network:
    """The network by the adapter of a library."""
    if library == "flax.nnx":
        from nnref.training.adapters.nnx import nnx_network

        return nnx_network(build)
    if library == "equinox":
        from nnref.training.adapters.equinox import equinox_network

        return equinox_network(build, x)
    if model is None:
        raise UserError(f"model: of {library} give the model itself, not a function of a key")
    if library == "flax.linen":
        from nnref.training.adapters.linen import linen_network

        return linen_network(model, x)
    if library == "keras":
        from nnref.training.adapters.keras import keras_network

        return keras_network(model, x)
    from nnref.training.adapters.haiku import haiku_network

    return haiku_network(model, x)


def builder_of(model: Callable[..., Any]) -> tuple[Callable[[Any], Any], bool]:
    """A class or a function as `build(key)`, and whether it takes a key or rngs at all.

    Raises:
        UserError: where it needs other arguments.
    """
    parameters = parameters_of(model) or []
    if getattr(model, "__qualname__", "").startswith("make_with_state."):
        return lambda key: with_key(model, key), True  # of Equinox, which hides the arguments
    names = [one.name for one in parameters if one.default is one.empty]
    known = [one.name for one in parameters if KNOWN.get(one.name) == "key"]
    needed = [name for name in required(model) if name not in known]
    by_name = [one for one in parameters if one.kind is one.KEYWORD_ONLY and one.name in names]
    missing = needed + [one.name for one in by_name if one.name not in known]
    if not known and len(missing) == 1 and not isinstance(model, type):
        return lambda key: model(rngs_of(key)), True  # a function of rngs, by whatever name
    if missing:
        call = getattr(model, "__name__", "model")
        raise UserError(
            f"model: {call} also takes {', '.join(missing)}; give nnref a function that passes "
            f"them, such as model=lambda rngs: {call}(..., rngs=rngs)"
        )
    if not known:
        return lambda key: model(), False
    (name, *_) = known
    if "rngs" in name:
        return lambda key: model(**{name: rngs_of(key)}), True
    return lambda key: model(**{name: key}), True


def with_key(model: Callable[..., Any], key: Any) -> Any:
    """What `eqx.nn.make_with_state(Net)` builds of a key.

    Raises:
        UserError: where the class of the module takes other arguments.
    """
    try:
        return model(key=key)
    except TypeError as error:
        raise UserError(
            f"model: {error}; give nnref a function that passes what it takes, such as "
            "model=lambda key: eqx.nn.make_with_state(Net)(..., key=key)"
        ) from None


def rngs_of(key: Any) -> Any:
    """The streams of random numbers of a module of NNX, whatever their names are."""
    from flax import nnx

    other = jax.random.fold_in(key, 2)
    return nnx.Rngs(other, params=key, dropout=jax.random.fold_in(key, 1))


def built_by(build: Callable[[Any], Any]) -> str:
    """The library of what a function of a key builds, which draws no weight for it.

    Raises:
        UserError: for what is none that nnref knows.
    """
    made: list[Any] = []

    def shapes(key: Any) -> tuple[()]:
        built = build(key)
        one = built[0] if isinstance(built, tuple) and len(built) == 2 else built
        made.append((library_of(one), type(built).__name__))
        return ()

    jax.eval_shape(shapes, jax.random.key(0))
    library, kind = made[0]
    if library is None:
        raise UserError(
            f"model(rngs) gave a {kind}, which is none that nnref knows; give {ALLOWED}"
        )
    return library


def fractions_of(tree: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The parameters of a module or a tree, arrays of fractions alone, and the way back to it.

    Of a module numbers in Python's own form are settings; in a tree of a user they are parameters.
    """
    library = library_of(tree)
    if library == "flax.nnx":
        network = network_of(tree, None)
        params, state = network.init(jax.random.key(0))
        return params, lambda params: network.whole(params, state)

    def kept(leaf: Any) -> bool:
        if library == "equinox":
            return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.inexact)
        return isinstance(leaf, float | complex) or (
            hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)
        )

    params = jax.tree.map(lambda leaf: leaf if kept(leaf) else None, tree)

    def whole(params: Any) -> Any:
        return jax.tree.map(
            lambda leaf, other: other if leaf is None else leaf,
            params,
            tree,
            is_leaf=lambda node: node is None,
        )

    return params, whole


def optax_of(optimizer: Any) -> Any:
    """An optimizer of NNX, or of Keras, as a transformation of optax; any other as it is."""
    library = library_of(optimizer)
    if library == "keras":
        from nnref.training.adapters.keras_compiled import keras_optimizer

        return keras_optimizer(optimizer)
    return optimizer.tx if library == "flax.nnx" else optimizer
