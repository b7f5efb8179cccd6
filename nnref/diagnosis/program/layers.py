"""The layers of a traced network: products with parameters, and the activations behind them."""

from typing import Any, NamedTuple

import jax
import numpy as np

from nnref.diagnosis.program.tracing import PRODUCTS, Operation, Trace, trace
from nnref.diagnosis.recipe import Recipe
from nnref.internals import summed_terms

# Operations that are linear in what flows through them, whatever stands beside it.
LINEAR = {
    "add",
    "add_any",
    "sub",
    "neg",
    "reshape",
    "transpose",
    "broadcast_in_dim",
    "reduce_sum",
    "reduce_window_sum",
    "cumsum",
    "convert_element_type",
    "reduce_precision",
    "slice",
    "squeeze",
    "concatenate",
    "split",
    "pad",
    "rev",
    "copy",
    "copy_p",
    "name",
    "stop_gradient",
    "optimization_barrier",
    "sharding_constraint",
    "enter",
}
# Of the same numbers, in another shape.
SHAPES = {"reshape", "transpose", "broadcast_in_dim", "squeeze", "convert_element_type"}
# Linear in one operand where the others are fixed: the places of that operand.
MULTILINEAR: dict[str, tuple[int, ...]] = {
    "mul": (0, 1),
    "dot_general": (0, 1),
    "conv_general_dilated": (0, 1),
    "div": (0,),
    "select_n": (1, 2, 3, 4),
    "gather": (0,),
    "dynamic_slice": (0,),
    "dynamic_update_slice": (0, 1),
    "scatter": (0, 2),
    "scatter-add": (0, 2),
}
NAMES = {
    ("max",): "relu",
    ("logistic",): "sigmoid",
    ("exp", "div"): "softmax",
    ("exp",): "exponential",
    ("logistic", "mul"): "silu",
}


class Layer(NamedTuple):
    """A product of data and parameters, and what follows before the next one.

    `before` and `after` are pre-activation and activation, `product` is what the product gives, all
    values of the trace. An embedding (`gather`) has no product to be affine in.
    """

    parameters: tuple[str, ...]  # paths of those that its kernel is made of
    kind: str  # primitive of the product
    where: str  # file and line
    primitives: tuple[str, ...]  # the nonlinear ones of the activation; () where there is none
    shape: tuple[int, ...]  # of the pre-activation, the batch first
    fan_in: int  # numbers that one number of the product is a sum of
    looped: bool  # inside a loop: it has no one value
    weighs: bool  # what its activation gives are weights of other data, as in attention
    product: int
    before: int
    after: int

    @property
    def name(self) -> str:
        """The common prefix of the parameter paths: `dense_1` of `dense_1.kernel`."""
        return self.parameters[0].rpartition(".")[0] or self.parameters[0]

    @property
    def place(self) -> str:
        """Its name and the line of the user's code where it stands."""
        return f"{self.name}, {self.where}" if self.where else self.name

    @property
    def activation(self) -> str:
        """A word for the activation: "relu", "sigmoid", ..., "" where there is none."""
        return NAMES.get(self.primitives, "+".join(self.primitives))


def layers(recipe: Recipe, rows: int = 2) -> list[Layer]:
    """The layers of a recipe in the order in which data meet them, in evaluation mode.

    Of each: the paths of its parameters, file and line of the user's code, and the primitives of
    the activation that follows. Layers in a loop are listed once.
    """
    params, state = jax.eval_shape(recipe.init, jax.random.key(0))
    x = recipe.train[0][: recipe.rows or rows]
    return layers_of(forward(recipe, params, state, x, loops=True))


def activations(recipe: Recipe, params: Any, state: Any, x: Any) -> list[tuple[Any, Any]]:
    """Pre-activation and activation of each layer on a batch, in evaluation mode; can be jitted.

    They come in the order of `layers`, without those in a loop, which have no one value. Where a
    layer has no activation, the two are the same.

    Args:
        recipe: whose network it is.
        params: its parameters.
        state: what it carries.
        x: rows.
    """
    traced = forward(recipe, params, state, x)
    known = [layer for layer in layers_of(traced) if not layer.looped]
    leaves = jax.tree.leaves((params, state, x, jax.random.key(0)))
    wanted = [value for layer in known for value in (layer.before, layer.after)]
    values = traced.evaluate(leaves, wanted)
    return list(zip(values[::2], values[1::2], strict=True))


def forward(
    recipe: Recipe, params: Any, state: Any, x: Any, train: bool = False, loops: bool = False
) -> Trace:
    """The program of a network: arguments parameters, state, rows, key; result outputs, state."""

    def applied(params: Any, state: Any, x: Any, key: Any) -> Any:
        return recipe.apply(params, state, x, key, train)

    return trace(applied, params, state, x, jax.random.key(0), loops=loops)


def parameters_in(traced: Trace) -> dict[int, frozenset[int]]:
    """The parameters that each value is made of, for values that no data enter."""
    data = traced.reached(traced.arguments[2])
    made = {value: frozenset([value]) for value in traced.arguments[0]}
    for operation in traced.operations:
        if data.isdisjoint(operation.outputs):
            sources = [made[value] for value in operation.inputs if value in made]
            if sources:
                made.update(dict.fromkeys(operation.outputs, frozenset().union(*sources)))
    return made


def products(traced: Trace) -> list[tuple[Operation, int, int, frozenset[int]]]:
    """Products of data and parameters: the operation, data, kernel, parameters of the kernel."""
    data = traced.reached(traced.arguments[2])
    made = parameters_in(traced)
    products = []
    for operation in traced.operations:
        if operation.name in PRODUCTS:
            for kernel, other in ((0, 1), (1, 0)):
                if operation.inputs[kernel] in made and operation.inputs[other] in data:
                    factor = operation.inputs[kernel]
                    products.append((operation, operation.inputs[other], factor, made[factor]))
    return products


def fan_in(traced: Trace, operation: Operation, kernel: int) -> int:
    """The numbers of the kernel that one number of a product is a sum over."""
    terms = summed_terms(operation.equation, operation.inputs.index(kernel))
    return terms or int(np.prod(traced.shape(kernel)[:-1]))


def layers_of(traced: Trace) -> list[Layer]:
    """The layers of a traced network that its outputs or its new state need."""
    needed = traced.needed(traced.outputs)
    inside = looped(traced)
    consumers = {
        value: [operation for operation in operations if not needed.isdisjoint(operation.outputs)]
        for value, operations in traced.consumers().items()
    }
    own = {operation.outputs[0] for operation, *_ in products(traced)}
    layers = []
    for operation, _, kernel, parameters in products(traced):
        product = operation.outputs[0]
        if product in inside:
            before = after = product
            primitives: tuple[str, ...] = ()
        elif product in needed:
            before, after, primitives = follow(traced, consumers, own, product)
        else:
            continue
        layers.append(
            Layer(
                parameters=tuple(traced.paths[value] for value in sorted(parameters)),
                kind=operation.name,
                where=operation.where,
                primitives=primitives,
                shape=traced.shape(before),
                fan_in=fan_in(traced, operation, kernel),
                looped=product in inside,
                weighs=weighs(traced, after),
                product=product,
                before=before,
                after=after,
            )
        )
    return layers


def weighs(traced: Trace, value: int) -> bool:
    """Whether a value is multiplied with other values that the data enter."""
    same = traced.reached([value], lambda operation: operation.name in SHAPES)
    data = traced.reached(traced.arguments[2])
    return any(
        operation.name in ("mul", "dot_general")
        and not same.isdisjoint(operation.inputs)
        and len(data & set(operation.inputs) - same) == 1
        for operation in traced.operations
    )


def looped(traced: Trace) -> set[int]:
    """Values within the opened bodies of loops."""
    entered = [out for op in traced.operations if op.name == "enter" for out in op.outputs]
    return traced.reached(entered)


def follow(
    traced: Trace, consumers: dict[int, list[Operation]], own: set[int], product: int
) -> tuple[int, int, tuple[str, ...]]:
    """Pre-activation and activation behind a product, and the primitives between them.

    Affine steps and normalizations are passed; the activation is where all ways from the
    pre-activation meet again behind something nonlinear. The largest of a row, which a softmax
    takes away first, is part of it.
    """
    before = current = product
    primitives: tuple[str, ...] = ()
    while True:
        meeting, between = meet(traced, consumers, own, current)
        if meeting is None:
            if not primitives:
                for operation in consumers.get(current, ()):
                    if bends(operation, {current}) and operation.name not in ("mul", "div"):
                        return before, operation.outputs[0], (operation.name,)
            return (before, current, primitives) if primitives else (before, before, ())
        nonlinear = bent(traced, between, current, meeting)
        names = [operation.name for operation in between]
        if primitives:
            if primitives == ("exp",) and "reduce_sum" in names and names[-1] == "div":
                return before, meeting, ("exp", "div")
            return before, current, primitives
        primitives = nonlinear
        current = meeting
        if not primitives and not ("reduce_max" in names and names[-1] == "sub"):
            before = meeting


def meet(
    traced: Trace, consumers: dict[int, list[Operation]], own: set[int], start: int
) -> tuple[int | None, list[Operation]]:
    """The value through which all that depends on `start` goes, and the operations between.

    None where a product, a loop or the end of the program comes first.
    """
    waiting = {start: len(consumers.get(start, ()))}
    between: list[Operation] = []
    outputs = set(traced.outputs)
    if start in outputs or not waiting[start]:
        return None, []
    for operation in traced.operations:
        taken = waiting.keys() & set(operation.inputs)
        if not taken or operation not in consumers.get(next(iter(taken)), ()):
            continue
        if not own.isdisjoint(operation.outputs) or operation.name in ("scan", "while", "enter"):
            return None, []
        between.append(operation)
        for value in taken:
            waiting[value] -= 1
            if not waiting[value]:
                del waiting[value]
        for out in operation.outputs:
            if consumers.get(out) or out in outputs:
                waiting[out] = len(consumers.get(out, ())) + (out in outputs)
        if len(waiting) == 1 and start not in waiting:
            return next(iter(waiting)), between
        if not waiting:
            return None, []
    return None, []


def bent(traced: Trace, between: list[Operation], start: int, end: int) -> tuple[str, ...]:
    """The nonlinear primitives on the ways from `start` to `end` that keep every number apart.

    What comes by way of a mean or a sum is a coefficient: a normalization bends nothing.
    """
    size = traced.size(start)
    if len(between) == 1:
        return (between[0].name,) if bends(between[0], {start}) else ()
    ahead = {start}
    for operation in between:
        if not ahead.isdisjoint(operation.inputs) and not operation.name.startswith("reduce"):
            ahead.update(out for out in operation.outputs if traced.size(out) == size)
    behind = {end}
    for operation in reversed(between):
        if not behind.isdisjoint(operation.outputs):
            behind.update(value for value in operation.inputs if value in ahead)
    on_the_way = ahead & behind
    return tuple(
        operation.name
        for operation in between
        if not on_the_way.isdisjoint(operation.outputs) and bends(operation, on_the_way)
    )


def bends(operation: Operation, flowing: set[int]) -> bool:
    """Whether an operation that works number by number is nonlinear in what flows through it."""
    places = [i for i, value in enumerate(operation.inputs) if value in flowing]
    if not places or operation.name in LINEAR or operation.name.startswith(("reduce", "arg")):
        return False
    if operation.name in MULTILINEAR:
        allowed = MULTILINEAR[operation.name]
        if operation.name == "select_n":
            return 0 in places
        return len(places) > 1 or places[0] not in allowed
    return True


def affine(operation: Operation, flowing: set[int], data: set[int]) -> bool:
    """Whether an operation is affine in what flows through it, beside nothing else of the data."""
    places = [i for i, value in enumerate(operation.inputs) if value in flowing]
    beside = [value for value in operation.inputs if value in data and value not in flowing]
    if operation.name in LINEAR:
        return True
    if operation.name not in MULTILINEAR or beside:
        return False
    if operation.name == "select_n":
        return 0 not in places
    return len(places) == 1 and places[0] in MULTILINEAR[operation.name]
