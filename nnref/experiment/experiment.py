"""The experiment file: strict JSON, turned into an `Experiment` that is frozen and has an identity.

The schema of its parts is drawn from the signatures of the families' functions, see `schema.py`:
nothing of it is written here.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from nnref.bounds import Count
from nnref.data import DATA
from nnref.errors import UserError
from nnref.experiment.axes import Sweep
from nnref.experiment.claims import Claim, Seeds, Stop, in_a_tuple
from nnref.experiment.schema import (
    Part,
    Reference,
    arguments_model,
    component,
    explain,
    member_model,
)
from nnref.experiment.sources import looking_in
from nnref.experiment.text import as_text, contents, in_file, locate, read_text, set_path
from nnref.parts.activations import ACTIVATIONS
from nnref.parts.clipping import CLIPPING
from nnref.parts.initializers import INITIALIZERS
from nnref.parts.losses import LOSSES
from nnref.parts.metrics import METRICS
from nnref.parts.models import MODELS
from nnref.parts.optimizers import OPTIMIZERS
from nnref.parts.regularizers import Regularization
from nnref.parts.schedules import SCHEDULES

FAMILIES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "data": DATA,
    "model": MODELS,
    "activation": ACTIVATIONS,
    "initializer": INITIALIZERS,
    "loss": LOSSES,
    "metric": METRICS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "clipping": CLIPPING,
}


class Mistakes(UserError):
    """Everything that is wrong with the keys of an experiment."""

    def __init__(self, error: ValidationError):
        super().__init__("\n".join(explain(error, Experiment, {})))
        self.error = error

    def in_lines_of(self, text: str) -> list[str]:
        """Each mistake, with its line in the text of a file."""
        return explain(self.error, Experiment, locate(text)[0])


Record = arguments_model("regularization", Regularization, None)


def nothing_on(value: Any) -> Any:
    """No arguments for what is switched off."""
    return {} if value == "off" else value


class Experiment(Part):
    """Everything that decides what a run computes.

    Args (all by keyword): the keys of an experiment file; a component is its name, or a dict of
    its name and arguments.

    Raises:
        UserError: listing every mistake.
    """

    schema_: Annotated[
        str, Field(alias="$schema", description="path of schema.json, for editors")
    ] = ""
    about: Annotated[str, Field(description="what the experiment is for")] = ""
    data: component("data", DATA)  # pyright: ignore
    model: component("model", MODELS)  # pyright: ignore
    loss: component("loss", LOSSES)  # pyright: ignore
    optimizer: component("optimizer", OPTIMIZERS)  # pyright: ignore
    schedule: component("schedule", SCHEDULES) = member_model(  # pyright: ignore
        "schedule", "constant", SCHEDULES["constant"]
    ).model_validate({"name": "constant"})
    clipping: component("clipping", CLIPPING) | None = None  # pyright: ignore
    regularization: Annotated[Record, BeforeValidator(nothing_on)] = Field(  # pyright: ignore
        Record(), description='terms that are on; "off" for none'
    )
    metrics: Annotated[
        tuple[component("metric", METRICS), ...] | None,  # pyright: ignore
        Field(description="what is measured beside the loss; null for what suits the targets"),
    ] = None
    batch_size: Annotated[Count, Field(description="examples an update")]
    epochs: Annotated[Count, Field(description="passes over the training data")]
    seeds: Annotated[Seeds, Field(description="one run for each, all in one program")] = (0,)
    shuffle: Annotated[bool, Field(description="draw the order of the rows anew each epoch")] = True
    evaluate_every: Annotated[
        Count, Field(description="epochs between two validations; the last epoch always has one")
    ] = 1
    probes: Annotated[
        Literal["off", "epoch", "step"],
        Field(
            description="how often each layer is measured: gradients, updates, dead units; "
            '"epoch" leaves some out where they would cost more than 5 % of the time'
        ),
    ] = "epoch"
    stop: Annotated[Stop | None, Field(description="when a seed stops early")] = None
    claim: Annotated[
        tuple[Claim, ...],
        BeforeValidator(in_a_tuple, json_schema_input_type=Claim | list[Claim]),
        Field(description="what must come out; several must all hold"),
    ] = ()
    devices: Annotated[
        Count | Literal["all"],
        Field(description='devices that share each batch: a number, or "all" that there are'),
    ] = 1
    shard: Annotated[
        Literal["off", "params"],
        Field(description='"params": each device holds its share of parameters and optimizer'),
    ] = "off"
    precision: Annotated[
        Literal["float32", "bf16"],
        Field(description='"bf16": activations in bfloat16, parameters and loss in float32'),
    ] = "float32"
    sweep: Annotated[
        Sweep | None, Field(description="what varies, for nnref sweep: the rest is the same")
    ] = None

    def __init__(self, /, **keys: Any):
        try:
            super().__init__(**keys)
        except ValidationError as error:
            raise Mistakes(error) from None

    def __hash__(self) -> int:
        return hash(self.canonical)

    @cached_property
    def canonical(self) -> str:
        """The content that decides a run, sorted, without what equals its default.

        Leaving defaults out lets the identity survive a new argument in a later version. About and
        claim decide nothing, each seed is a run of its own, and so is each variant of a sweep. On
        how many devices a run is computed changes no more than how its sums are rounded.
        """
        excluded = NOT_HASHED | {"seeds"}
        content = self.model_dump(
            mode="json", by_alias=True, exclude_defaults=True, exclude=excluded
        )
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @cached_property
    def identity(self) -> str:
        """Ten hexadecimal digits that name the canonical content, the same everywhere."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()[:10]

    def to_json(self) -> str:
        """The complete experiment, defaults filled in, as a file that reads back to itself."""
        left_out = {"schema_"} if self.sweep else {"schema_", "sweep"}
        return as_text(self.model_dump(mode="json", by_alias=True, exclude=left_out))

    def replaced(self, settings: Mapping[str, Any]) -> "Experiment":
        """The same experiment with some keys set, each named by its path of dots.

        Raises:
            UserError: for a path that leads nowhere, or a value that is not allowed.
        """
        content = self.model_dump(mode="json", by_alias=True)
        for path, value in settings.items():
            set_path(content, path, value)
        return Experiment(**content)

    # Hyperparameters may be traced: one program serves every learning rate. Structure may not.

    @cached_property
    def hyperparameters(self) -> dict[str, float]:
        """The floats that a program takes as arguments, by path: "optimizer.learning_rate"."""
        return {
            path: value
            for kind in TRACED
            for path, value in float_leaves(getattr(self, kind), kind)
        }

    @cached_property
    def structure(self) -> str:
        """What decides a program besides its hyperparameters: all but data, plan and words."""
        content = self.model_dump(mode="json", exclude=NOT_HASHED | NOT_COMPILED | {"data"})
        for path in self.hyperparameters:
            set_path(content, path, None)
        return json.dumps(content, sort_keys=True)


NOT_HASHED = {"schema_", "about", "claim", "sweep", "devices", "shard"}  # decide nothing
TRACED = ("model", "loss", "optimizer", "schedule", "clipping", "regularization")
NOT_COMPILED = {"batch_size", "epochs", "seeds", "shuffle", "evaluate_every", "probes", "stop"}


def float_leaves(part: Any, path: str) -> Iterable[tuple[str, float]]:
    """The floats among the arguments of a part, with their paths."""
    if isinstance(part, Reference):
        # A user's own function may ask a number of its: only a rate is an argument of the program.
        rate = getattr(part, "learning_rate", None)
        if isinstance(rate, float):
            yield f"{path}.learning_rate", rate
    elif isinstance(part, Part):
        for name in type(part).model_fields:
            yield from float_leaves(getattr(part, name), f"{path}.{name}")
    elif isinstance(part, float):
        yield path, part


# --- reading a file -----------------------------------------------------------------------------


def parse(text: str, settings: Mapping[str, Any] | None = None) -> Experiment:
    """An experiment from the text of a file, with `settings` as in `Experiment.replaced`.

    Raises:
        UserError: listing every mistake with its path and line.
    """
    content = contents(text)
    for path, value in (settings or {}).items():
        set_path(content, path, value)
    try:
        return Experiment(**content)
    except Mistakes as mistakes:
        raise UserError("\n".join(mistakes.in_lines_of(text))) from None


def read(
    path: str | Path, settings: Mapping[str, Any] | None = None, text: str | None = None
) -> Experiment:
    """An experiment from a file, as `parse` makes it of its `text`, if that has been read already.

    Raises:
        UserError: for a file that is not there, or is no experiment.
    """
    path = Path(path)
    text = read_text(path) if text is None else text
    try:
        with looking_in(path.parent):
            return parse(text, settings)
    except UserError as error:
        raise UserError(in_file(path, str(error))) from None
