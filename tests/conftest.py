"""Fixtures that every room may use."""

import os

import jax
import pytest
from small import ABLATION, written

from nnref.studies.ablation import ablate
from nnref.training.compilation import compile_tiny_loops_whole, drop_programs, use_cache

NO_PASSES = "--xla_backend_optimization_level=0"


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Lets go of compiled programs before a process may hold no more."""
    yield
    drop_programs()


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


@pytest.fixture
def file(request, tmp_path):
    """A file of what the tests beside it call CONTENT."""
    return written(tmp_path / "small.json", request.module.CONTENT)


@pytest.fixture
def logbook(tmp_path):
    """A logbook in which nothing has been written down yet."""
    return tmp_path / "logbook"


@pytest.fixture(scope="session")
def compared(tmp_path_factory):
    """A comparison, its file, and its logbook; who changes the file writes it back."""
    folder = tmp_path_factory.mktemp("ablation")
    path = written(folder / "small.json", ABLATION)
    return ablate(path, logbook=folder / "logbook"), path, folder / "logbook"


def pytest_configure() -> None:
    """Most of the time of the tests goes into compiling, much of it the same every time.

    LLVM's passes are left out: programs that run for a second need none, and the whole takes a
    quarter less time.
    """
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {NO_PASSES}".lstrip()
    use_cache()
    compile_tiny_loops_whole()
