"""Crawl: grow the network of an experiment step by step, and see what its size buys.

Linear first, then one hidden layer of 1, 2, 4, ... units, then more layers of the width that was
best. The smallest network that reaches the claim is the one to begin with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nnref.errors import UserError
from nnref.experiment.claims import TwinClaim
from nnref.experiment.experiment import Experiment, read
from nnref.logbook.verdicts import judge
from nnref.studies.listeners import SweepListener
from nnref.studies.sweep import sweep
from nnref.studies.sweep_record import plan_of_content
from nnref.training.compilation import usual_settings

HELPS = 0.9  # a larger network helps where its loss is less than this share of the best before


@dataclass(frozen=True)
class Rung:
    """One size of network."""

    layers: tuple[int, ...] | None  # hidden ones; None for the linear model
    parameters: int
    loss: float  # median over seeds, infinite where they diverged
    held: bool | None  # the claim; None where there is none to judge
    ending: str  # in words

    @property
    def name(self) -> str:
        """Its layers, in a word."""
        return "linear" if self.layers is None else "-".join(map(str, self.layers))


@dataclass(frozen=True)
class Crawl:
    """All sizes, the smallest first."""

    name: str
    measure: str
    rungs: tuple[Rung, ...]

    @property
    def smallest(self) -> Rung | None:
        """The smallest network that reaches the claim."""
        holds = [rung for rung in self.rungs if rung.held]
        return min(holds, key=lambda rung: rung.parameters, default=None)

    @property
    def enough(self) -> Rung:
        """The size beyond which no larger network has much less loss."""
        best = self.rungs[0]
        for rung in sorted(self.rungs, key=lambda rung: rung.parameters):
            best = rung if rung.loss < HELPS * best.loss else best
        return best

    @property
    def sentence(self) -> str:
        """The smallest size that reaches the claim, and the size that is enough, in words."""
        last = f"growing beyond {self.enough.name} does not help ({self.measure} "
        last += f"{self.enough.loss:.4g})"
        if all(rung.held is None for rung in self.rungs):
            return f"{last}; there is no claim about these seeds to reach"
        if self.smallest is None:
            return f"none of these sizes reaches the claim; {last}"
        parameters = f"{self.smallest.parameters:,} parameters"
        return f"the smallest that reaches the claim: {self.smallest.name}, {parameters}; {last}"


@usual_settings()
def crawl(
    path: str | Path, *, widest: int = 128, deepest: int = 3, listener: SweepListener | None = None
) -> Crawl:
    """Train networks of every size from the linear model up, on the seeds of the experiment.

    Args:
        path: of the file of an experiment whose model is an MLP or linear.
        widest: units of a hidden layer, at most.
        deepest: hidden layers, at most.
        listener: hears how it goes.

    Raises:
        UserError: for mistakes in the file, or another model.
    """
    experiment = read(path)
    model = experiment.model.model_dump(mode="json")
    if model["name"] not in ("mlp", "linear"):
        raise UserError(
            f"model: {model['name']} given; only linear models and MLPs grow by width and depth"
        )
    if any(isinstance(claim, TwinClaim) for claim in experiment.claim):
        raise UserError("claim: one about a twin says nothing of another size; leave it out")
    if model["name"] == "linear":
        model = {"name": "mlp"}
    widths = [2**k for k in range(widest.bit_length()) if 2**k <= widest]
    first = [None, *((width,) for width in widths)]
    name = Path(path).stem
    measure, rungs = grown(name, experiment, model, first, listener)
    best = min(rungs[1:], key=lambda rung: rung.loss).layers
    assert best is not None, "it has a hidden layer"
    deeper = [best * depth for depth in range(2, deepest + 1)]
    if deeper:
        rungs += grown(name, experiment, model, deeper, listener)[1]
    return Crawl(name, measure, tuple(rungs))


def grown(
    name: str,
    experiment: Experiment,
    model: Mapping[str, Any],
    sizes: Sequence[tuple[int, ...] | None],
    listener: SweepListener | None,
) -> tuple[str, list[Rung]]:
    """Train networks of some sizes: the loss that counts, and how each size ended."""
    models = ["linear" if size is None else {**model, "hidden": list(size)} for size in sizes]
    content = experiment.model_dump(mode="json", by_alias=True)
    content |= {"model": models[0], "sweep": {"axes": {"model": models}}}
    plan = plan_of_content(name, content)
    result = sweep(plan, logbook=None, listener=listener)
    group_of = {job.variant: group for group in plan.groups for job in group.jobs}
    rungs = []
    for number, size in enumerate(sizes):
        records = result.of(number)
        weights = jax.tree.leaves(group_of[number].like.params)
        verdict = judge(result.variants[number].experiment, records, lambda name: {})
        parameters = sum(int(np.prod(leaf.shape)) for leaf in weights)
        rungs.append(Rung(size, parameters, result.final(number), verdict.held, verdict.sentence))
    return result.loss, rungs
