"""Batches that come again because a generator of random numbers begins anew with the same seed."""

from collections.abc import Callable, Iterator
from dis import get_instructions
from typing import Any

from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.loop.edited import has_not_learned, scale_for
from nnref.diagnosis.loop.running import Loop
from nnref.diagnosis.loop.stepping import alike
from nnref.diagnosis.one_edit.rewriting import codes_run
from nnref.diagnosis.program.tracing import shortened

BEGINS = {"default_rng", "RandomState", "PRNGKey"}  # these make a generator, or a key, of a seed
# These draw new numbers; others choose among rows that there are.
DRAWS = {
    "normal",
    "standard_normal",
    "truncated_normal",
    "randn",
    "uniform",
    "rand",
    "exponential",
    "gamma",
    "beta",
    "laplace",
    "poisson",
    "binomial",
    "bernoulli",
}


def begun_anew(function: Callable[[], Any]) -> str:
    """Where a call begins a generator and draws new numbers, by the names in what it runs.

    "" where it does not do both.
    """
    codes = list(codes_run(function))
    names = {name for code in codes for name in code.co_names}
    places = [
        f"{shortened(code.co_filename)}:{step.positions.lineno}"
        for code in codes
        for step in get_instructions(code)
        if step.argval in BEGINS and step.positions is not None
    ]
    return places[0] if places and not DRAWS.isdisjoint(names) else ""


def period_of(batches: list[Any]) -> int:
    """After how many batches they come again, all of them; 0 where they do not."""
    for period in range(2, len(batches) // 2 + 1):
        pairs = zip(batches, batches[period:], strict=False)
        if all(alike(one, other) for one, other in pairs):
            return period
    return 0


def drawn_again(loop: Loop) -> Iterator[Finding]:
    """Batches that are drawn anew, and are those of some steps before.

    Rows that are chosen among stored ones may well come again, in whatever order. A fault where the
    evaluation says that the loop has not learned.
    """
    period = 0 if loop.drawn is None or loop.one_batch else period_of(loop.batches)
    if not period or loop.drawn is None:
        return
    drawn = loop.drawn
    line = begun_anew(lambda: drawn(period))
    if not line:
        return
    scale = scale_for(loop)
    wrong = scale is not None and has_not_learned(loop, scale)
    yield (fault if wrong else note)(
        "repeated_rows",
        f"batches; {line}",
        f"the batches of {period} steps come again, number by number, though they are drawn: a "
        "generator begins anew with a seed that is the same each time, so that there are no other "
        "rows than these",
        f"{period} different batches in {len(loop.batches)} steps",
        healthy="other rows at every step",
        remedy="a seed that says which turn it is, np.random.default_rng([seed, worker, epoch]), "
        "or one generator that is kept",
        confidence=0.8,
    )
