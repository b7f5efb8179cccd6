"""Claims: which seeds are run, what must come out of them, and when one stops before its end."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge
from pydantic import BeforeValidator, Discriminator, Field, PlainSerializer, Tag, model_validator

from nnref.bounds import Count, Index
from nnref.experiment.schema import Part


class SeedRange(Part):
    """Seeds from the first up, as many as counted."""

    first: Index = 0
    count: Count


def range_of_seeds(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    seeds = SeedRange(**value)
    return tuple(range(seeds.first, seeds.first + seeds.count))


def range_in_short(seeds: tuple[int, ...]) -> Any:
    first, count = seeds[0], len(seeds)
    if count > 8 and seeds == tuple(range(first, first + count)):
        return {"first": first, "count": count}
    return list(seeds)


Seeds = Annotated[
    tuple[Index, ...],
    BeforeValidator(range_of_seeds, json_schema_input_type=list[Index] | SeedRange),
    PlainSerializer(range_in_short),
    Field(min_length=1),
]


def in_a_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


class Bounds(Part):
    """A measure of the history and the values it may have."""

    metric: Annotated[str, Field(description="a measure, like valid_loss or train_accuracy")]
    at_least: Annotated[float | None, Field(description="the measure reaches this or more")] = None
    at_most: Annotated[float | None, Field(description="the measure reaches this or less")] = None

    def within(self, value: float) -> bool:
        """Whether a value is within the bounds. NaN never is."""
        low = -np.inf if self.at_least is None else self.at_least
        high = np.inf if self.at_most is None else self.at_most
        return low <= value <= high

    @model_validator(mode="after")
    def says_something(self) -> "Bounds":
        if self.at_least is None and self.at_most is None:
            raise ValueError("give at_least or at_most, or both")
        return self

    def __str__(self) -> str:
        sides = ((">=", self.at_least), ("<=", self.at_most))
        bounds = [f"{sign} {bound:g}" for sign, bound in sides if bound is not None]
        return " and ".join(f"{self.metric} {bound}" for bound in bounds) or self.metric


class CountClaim(Bounds):
    """A measure at the end of the run, a bound, and in how many of the seeds."""

    word: ClassVar[str | None] = "count"
    in_: Annotated[
        tuple[Index, ...],
        BeforeValidator(in_a_tuple, json_schema_input_type=int | list[int]),
        Field(
            alias="in",
            min_length=1,
            max_length=2,
            description="seeds that must reach it: this many or more, or [from, to]",
        ),
    ]
    of: Annotated[Count, Field(description="seeds of the run")]

    @model_validator(mode="after")
    def is_possible(self) -> "CountClaim":
        if max(self.in_) > self.of:
            raise ValueError(f"in must not be more than of, {self.of}")
        return self

    def judged(self, values: Sequence[float]) -> tuple[bool, str]:
        """Whether enough seeds, and not too many, are within the bounds; and that in words."""
        least, most = (*self.in_, self.of)[:2]
        reached = sum(map(self.within, values))
        wanted = f"{least} or more" if most == self.of else f"{least} to {most}"
        sentence = f"{self} in {reached} of {self.of} seeds, claimed {wanted}"
        return least <= reached <= most, sentence


STATISTICS = {
    "mean": np.mean,
    "mean_square": lambda values: np.mean(np.square(values)),
    "median": np.median,
}


class StatisticClaim(Bounds):
    """A statistic over the seeds of a measure at the end of the run, and its bounds."""

    word: ClassVar[str | None] = "statistic"
    statistic: Annotated[
        Literal["mean", "mean_square", "median"], Field(description="over the seeds")
    ]
    among: Annotated[
        Literal["all", "stopped"], Field(description="all seeds, or those that reached `stop`")
    ] = "all"

    def judged(self, values: Sequence[float]) -> tuple[bool, str]:
        """Whether the statistic is within the bounds; and that in words."""
        value = float(STATISTICS[self.statistic](values)) if len(values) else float("nan")
        of = f"{len(values)} seeds" if self.among == "all" else f"{len(values)} seeds that stopped"
        words = f"{self.statistic.replace('_', ' ')} of {of}"
        return self.within(value), f"{self} in the {words}: {value:.6g}"


class TwinClaim(Part):
    """A measure that is the same at every epoch as in another experiment."""

    word: ClassVar[str | None] = "twin"
    metric: Annotated[str, Field(description="a measure, like valid_loss or train_accuracy")]
    twin: Annotated[str, Field(description="name of the other experiment, in the same folder")]
    within: Annotated[float, Ge(0), Field(description="largest difference at any epoch")]
    times: Annotated[float, Field(description="factor on the other's measure")] = 1.0

    def judged(self, ours: np.ndarray, theirs: np.ndarray) -> tuple[bool, str]:
        """Whether histories (seeds, epochs + 1) agree; and that in words."""
        same_shape = ours.shape == theirs.shape
        apart = float(np.abs(ours - self.times * theirs).max()) if same_shape else float("inf")
        times = "" if self.times == 1 else f"{self.times:g} times "
        sentence = f"{self.metric} is {times}that of {self.twin} to {apart:.2g}"
        return apart <= self.within, f"{sentence}, claimed {self.within:g}"


def kind_of_claim(value: Any) -> str:
    keys = value if isinstance(value, Mapping) else getattr(type(value), "model_fields", ())
    return "twin" if "twin" in keys else "statistic" if "statistic" in keys else "count"


Claim = Annotated[
    Annotated[CountClaim, Tag("count")]
    | Annotated[StatisticClaim, Tag("statistic")]
    | Annotated[TwinClaim, Tag("twin")],
    Discriminator(kind_of_claim),
]


class Stop(Bounds):
    """When a seed stops before its last epoch: at a target, or when patience is over.

    With patience the run keeps the network of its best evaluation, whether it stopped or not.
    """

    metric: Annotated[str, Field(description="the measure that is watched")] = "valid_loss"
    patience: Annotated[
        Count | None,
        Field(description="evaluations without a new best to wait for; the best one is kept"),
    ] = None

    @model_validator(mode="after")
    def says_something(self) -> "Stop":
        if self.at_least is None and self.at_most is None and self.patience is None:
            raise ValueError("a stop needs at_least, at_most or patience")
        return self
