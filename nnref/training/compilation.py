"""How XLA compiles: small loops as one piece of machine code, programs kept between processes."""

import os
from pathlib import Path
from typing import Any

import jax

from nnref.internals import WHOLE_LOOPS, WITHOUT_LIBRARIES

TINY = 8192  # bytes of state and data, up to which a loop becomes one piece of machine code


def compile_tiny_loops_whole() -> None:
    """Let XLA's CPU backend compile a loop over little memory as one function.

    Otherwise it walks through a list of kernels at each turn, about 0.1 us for each, which in a
    network of a dozen weights is nearly all the time: XOR takes 3.3 us an epoch so, and 0.5 whole
    (jaxlib 0.10.2 and 0.12.0.1). To be called before the backend starts; where the user has set
    XLA's extra options, they stay.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "--xla_backend_extra_options" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {WHOLE_LOOPS}={2 * TINY}".lstrip()


def is_tiny(*trees: Any) -> bool:
    """Whether arrays are so small that the loop over them is compiled as one function."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(trees)) <= TINY


def tiny_options() -> dict[str, Any]:
    """Compiler options for a program over little memory; none where XLA does not know them."""
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=WITHOUT_LIBRARIES).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return WITHOUT_LIBRARIES


def use_cache() -> None:
    """Keep compiled programs in the user's cache folder, unless JAX was told of another one."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "nnref" / "xla"))
    # Small programs take most of a short run, and JAX would not keep them.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
