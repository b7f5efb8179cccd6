"""How JAX is set, and how XLA compiles: small loops whole, programs kept between processes."""

import gc
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import jax

from nnref.internals import WHOLE_LOOPS, WITHOUT_LIBRARIES, keep_entries_whole

TINY = 8192  # bytes of state and data, up to which a loop becomes one piece of machine code
MAPPINGS, MOST_MAPPINGS = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
LOOKS = 20  # calls of nnref's functions, of which one looks how many programs are held
calls = count()


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
    keep_entries_whole()
    # Small programs take most of a short run, and JAX would not keep them.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def drop_programs() -> bool:
    """Let go of all compiled programs where they take half of the mappings that a process may have.

    Linux allows 65,530; a program of XLA's CPU backend takes three of them (jaxlib 0.10.2 and
    0.12.0.1), and where none is left, LLVM ends the process. Programs are compiled again as they
    are needed, or read from the cache.

    Returns:
        Whether they were dropped; never where the system does not say how many there are.
    """
    try:
        held = MAPPINGS.read_bytes().count(b"\n")
        most = int(MOST_MAPPINGS.read_text())
    except (OSError, ValueError):
        return False
    if held < most / 2:
        return False
    jax.clear_caches()
    gc.collect()
    return True


def platform_missing() -> str:
    """What JAX says of a platform that was asked for and is not there; nothing where it is."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where its plugin is missing
        asked = f"JAX_PLATFORMS={jax.config.values['jax_platforms']}"
        first = (str(error).splitlines() or ["its plugin is not installed"])[0]
        return f"{asked}: {first}; unset it, or install that platform"
    return ""


@contextmanager
def usual_settings() -> Iterator[None]:
    """JAX as it is by default, whatever the user has set for programs of their own.

    A stop at the first NaN would end what a diagnosis is about; strict promotion, a guard of
    transfers and calls without compilation are about a user's lines, and refuse nnref's.
    """
    if next(calls) % LOOKS == LOOKS - 1:
        drop_programs()
    with ExitStack() as stack:
        for setting in (
            jax.debug_nans(False),
            jax.debug_infs(False),
            jax.numpy_rank_promotion("allow"),
            jax.numpy_dtype_promotion("standard"),
            jax.transfer_guard("allow"),
            jax.disable_jit(False),
        ):
            stack.enter_context(setting)
        yield
