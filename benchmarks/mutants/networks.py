"""Which families of networks read which data, and in which styles they are written."""

from typing import Any

from benchmarks.mutants import linen_modules, nnx_modules, plain
from benchmarks.mutants.setup import Wiring

STYLES = {
    "plain": plain.NETWORKS,
    "nnx": nnx_modules.NETWORKS,
    "linen": linen_modules.NETWORKS,
}
FAMILIES = {
    "table": ("mlp", "residual"),
    "image": ("conv", "mlp"),
    "sequence": ("recurrent", "attention"),
    "tokens": ("bag", "recurrent", "attention"),
    "text": ("recurrent", "attention"),
    "pairs": ("siamese",),
    "ratings": ("factors",),
    "codes": ("autoencoder", "vae"),
}


def network(style: str, family: str, wiring: Wiring, x: Any) -> tuple[Any, Any]:
    """`init(key)` and `apply(params, state, x, key, train)` of a network for inputs like `x`."""
    return STYLES[style][family](wiring, x)


def styles_of(family: str) -> list[str]:
    return [style for style, networks in STYLES.items() if family in networks]
