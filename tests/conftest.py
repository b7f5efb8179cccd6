"""Fixtures that every room may use."""

import json

import jax
import pytest
from small import ABLATION

from nnref.studies.ablation import ablate
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


@pytest.fixture(scope="session")
def compared(tmp_path_factory):
    """A comparison, its file, and its logbook; who changes the file writes it back."""
    folder = tmp_path_factory.mktemp("ablation")
    path = folder / "small.json"
    path.write_text(json.dumps(ABLATION))
    return ablate(path, logbook=folder / "logbook"), path, folder / "logbook"


def pytest_configure() -> None:
    """Most of the time of the tests goes into compiling, much of it the same every time."""
    use_cache()
    compile_tiny_loops_whole()
