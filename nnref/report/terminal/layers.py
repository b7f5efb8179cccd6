"""The table of layers: what each gives for one example, its parameters and what it computes."""

import math
from collections import Counter
from typing import Any, NamedTuple

import jax
from flax import nnx
from rich.console import Console

from nnref import internals
from nnref.experiment.experiment import Experiment
from nnref.report.terminal.logbook import plain_table
from nnref.training.embedded import Embedding
from nnref.training.probes import LayerCall, owner, recorded_calls
from nnref.training.setup import bind, from_experiment

ITSELF = ""  # the model beside its layers


class LayerRow(NamedTuple):
    """A layer of a model: a module that the model itself calls."""

    name: str
    kind: str
    outputs: tuple[tuple[int, ...], ...]  # shapes, of one example
    parameters: int
    flops: int  # two for each multiplication and addition of a product or a convolution


def layers_table(experiment: Experiment) -> str:
    """The layers of an experiment's model as text, in the order in which an example meets them.

    Raises:
        UserError: for data that cannot be loaded, or do not fit the model.
    """
    _, setup, dataset = from_experiment(experiment)
    regularization = bind(experiment, "regularization", experiment.hyperparameters)()
    build = bind(experiment, "model", experiment.hyperparameters)

    def model() -> nnx.Module:
        return build(setup.seen, setup.outputs, nnx.Rngs(params=0, dropout=0), regularization)

    right = ("output", "parameters", "FLOPs")
    table = plain_table("layer", "kind", *right, right=right)
    vectors = vectors_of(setup.embedding)
    *rows, whole = rows_of(nnx.eval_shape(model), setup.seen, dataset.train.x.dtype)
    whole = whole._replace(parameters=whole.parameters + sum(row.parameters for row in vectors))
    for row in [*vectors, *rows, whole]:
        shapes = ", ".join(" x ".join(map(str, shape)) or "1" for shape in row.outputs)
        table.add_row(row.name, row.kind, shapes, f"{row.parameters:,}", f"{row.flops:,}")
    console = Console(width=200, color_system=None, markup=False)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def vectors_of(embedding: Embedding | None) -> list[LayerRow]:
    """A row for each column of a table whose categories become vectors."""
    columns = () if embedding is None else zip(embedding.names, embedding.shapes, strict=True)
    return [LayerRow(n, "vectors", (shape[1:],), math.prod(shape), 0) for n, shape in columns]


def rows_of(model: nnx.Module, inputs: tuple[int, ...], dtype: Any) -> list[LayerRow]:
    """A row for each layer, one for what the model has beside them, if anything, and the sum.

    Nothing is computed: the model, whose parameters may be mere shapes, is traced with an example
    of the shape `inputs`, as it is for the program that trains it.
    """
    examples = getattr(model, "streams", None) or 1  # a carried state has a fixed number
    model.eval()
    graph, state = nnx.split(model)
    calls: dict[str, LayerCall] = {}

    def forward(state: Any, x: jax.Array) -> Any:
        module = nnx.merge(graph, state)
        with recorded_calls(module, calls):
            return module(x)

    x = jax.ShapeDtypeStruct((examples, *inputs), dtype)
    program, outputs = jax.make_jaxpr(forward, return_shape=True)(state, x)
    computed: Counter[str] = Counter()
    count_flops(program, ITSELF, 1, calls.keys(), computed)
    sizes = parameters_of(model, calls.keys())
    rows = []
    for name, layer in calls.items():
        kind, shapes = type(layer.module).__name__, shapes_of(layer.outputs, examples)
        rows.append(LayerRow(name, kind, shapes, sizes[name], computed[name] // examples))
    shapes = shapes_of(outputs, examples)
    if sizes[ITSELF] or computed[ITSELF]:
        kind, flops = type(model).__name__, computed[ITSELF] // examples
        rows.append(LayerRow("beside them", kind, shapes, sizes[ITSELF], flops))
    return [*rows, LayerRow("in all", "", shapes, sizes.total(), computed.total() // examples)]


def count_flops(program: Any, layer: str, times: int, layers: Any, computed: Counter[str]) -> None:
    """Add to `computed` what the products and convolutions of a program cost, for each layer.

    The program is part of `layer`, and runs that many times; `layers` are all names.
    """
    for equation in program.eqns:
        scopes = internals.name_scopes(equation)
        inside = next((scope for scope in scopes if scope in layers), layer)
        computed[inside] += times * internals.flops(equation)
        repeated = times * internals.repetitions(equation)
        for body in internals.bodies(equation):
            count_flops(body.jaxpr, inside, repeated, layers, computed)


def parameters_of(model: nnx.Module, layers: Any) -> Counter[str]:
    """The number of parameters of each layer, and of the model beside them."""
    counted: Counter[str] = Counter()
    for path, param in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        layer = owner(".".join(map(str, path)), layers) or ITSELF
        counted[layer] += math.prod(param.shape)
    return counted


def shapes_of(outputs: Any, examples: int) -> tuple[tuple[int, ...], ...]:
    """The shapes of a layer's outputs, without the axis of examples: the first of that length."""
    shapes = [list(leaf.shape) for leaf in jax.tree.leaves(outputs)]
    for shape in shapes:
        if examples in shape:
            shape.remove(examples)
    return tuple(map(tuple, shapes))
