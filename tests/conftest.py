"""Fixtures that every room may use."""

import jax
import pytest

from nnref.training.compilation import compile_tiny_loops_whole, use_cache


@pytest.fixture
def float64():
    """Computes in double precision, for finite differences and oracles."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def strict_ranks():
    """Refuses to broadcast between arrays of different rank, which is seldom meant."""
    with jax.numpy_rank_promotion("raise"):
        yield


def pytest_configure() -> None:
    """Most of the time of the tests goes into compiling, much of it the same every time."""
    use_cache()
    compile_tiny_loops_whole()
