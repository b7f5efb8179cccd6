"""What nnref adds to pytest: markers, a seed, and a subject that is measured once a session.

It imports nothing of nnref before a test asks for it: a session without such a test costs nothing.
"""

from collections.abc import Callable
from typing import Any

import pytest

MARKERS = (
    "network: a property of a network before it is trained (nnref.checks)",
    "data: a property of the data (nnref.checks)",
    "trains: takes a training, and so the time of one",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option of the seed."""
    parser.addoption("--nnref-seed", type=int, default=0, help="the seed that nnref_seed gives")


def pytest_configure(config: pytest.Config) -> None:
    """The markers."""
    for line in MARKERS:
        config.addinivalue_line("markers", line)


@pytest.fixture(scope="session")
def nnref_seed(request: pytest.FixtureRequest) -> int:
    """The seed of `--nnref-seed`, 0 by default."""
    return int(request.config.getoption("--nnref-seed") or 0)


@pytest.fixture(scope="session")
def nnref_subject() -> Callable[..., Any]:
    """`nnref_subject(task)`, as `nnref.checks.subject`: each task is measured once a session."""
    from nnref.checks import subject

    known: dict[Any, Any] = {}

    def once(task: Any, **arguments: Any) -> Any:
        key = task if isinstance(task, str) else id(task)
        # The task is kept beside it: of one that is gone, the number may be given again.
        if key not in known:
            known[key] = task, subject(task, **arguments)
        return known[key][1]

    return once
