"""What is read of the insides of JAX and Flax is still there, and says what it said."""

import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend import core

from nnref import internals
from nnref.internals import (
    bodies,
    flops,
    haiku_function,
    keep_entries_whole,
    keras_loss,
    keras_metrics,
    parameters_of,
    scan_of,
    summed_terms,
)

SEEN = "as in jax 0.10.2 and 0.12.0.1, flax 0.12.8 and 0.12.12"


def equations(function, *arguments):
    """All equations of a traced function by name, those of the functions that it calls included."""
    named = {}

    def visit(program):
        for equation in program.eqns:
            named.setdefault(equation.primitive.name, []).append(equation)
            for body in bodies(equation):
                visit(body.jaxpr)

    visit(jax.make_jaxpr(function)(*arguments).jaxpr)
    return named


def test_a_traced_value_is_told_from_an_array():
    seen = []
    jax.make_jaxpr(lambda x: seen.append(internals.is_traced(x)) or x)(1.0)
    assert seen == [True], f"traced values are no longer jax.core.Tracer, {SEEN}"
    assert not internals.is_traced(jnp.ones(2))


def test_values_of_a_plain_program_are_told_from_those_of_vmap_and_grad():
    seen = []

    def look(x):
        seen.append(internals.is_of_a_plain_program(x * 2))
        return x * 2

    jax.make_jaxpr(look)(1.0)
    jax.make_jaxpr(jax.vmap(look))(jnp.ones(2))
    jax.make_jaxpr(jax.grad(look))(1.0)
    assert seen == [True, False, False], f"tracers have other names, {SEEN}"
    assert not internals.is_of_a_plain_program(jnp.ones(2))


def test_what_is_differentiated_is_known():
    seen = []

    def look(x):
        seen.append(internals.is_differentiated(x * 2))
        return x * 2

    jax.make_jaxpr(look)(1.0)
    jax.vmap(look)(jnp.ones(2))
    jax.vmap(jax.grad(look))(jnp.ones(2))
    jax.jit(jax.value_and_grad(look))(1.0)
    assert seen == [False, False, True, True], f"tracers have other names, {SEEN}"
    assert not internals.is_differentiated(jnp.ones(2))


def test_it_is_known_whether_a_program_is_being_traced():
    seen = [internals.is_tracing()]
    jax.make_jaxpr(lambda x: seen.append(internals.is_tracing()))(1.0)
    jax.eval_shape(jax.vmap(lambda x: seen.append(internals.is_tracing())), jnp.ones(2))
    assert [*seen, internals.is_tracing()] == [False, True, True, False], SEEN


def test_literals_and_variables_are_told_apart():
    (add,) = equations(lambda x: x + 2.0, 1.0)["add"]
    assert [internals.is_literal(atom) for atom in add.invars] == [False, True], SEEN
    assert add.invars[1].val == 2.0


def test_divisors_are_changed_line_by_line():
    def both(x):
        def turn(total, _):
            return total + x / 4.0, None  # 8 turns

        return jax.lax.scan(turn, 0.0, None, length=8)[0], jax.jit(lambda x: x / 4.0)(x), x / 2.0

    program = jax.make_jaxpr(both)(1.0)
    others = [
        [float(value) for value in core.jaxpr_as_fun(other)(1.0)]
        for other in internals.with_other_divisors(program, 4)
    ]
    assert others == [[1.0, 0.25, 0.5], [2.0, 0.125, 0.5]], SEEN


@pytest.mark.parametrize(
    ("function", "name", "programs"),
    [
        (lambda x: jax.jit(jnp.sin)(x), ("jit", "pjit"), 1),
        (lambda x: jax.lax.cond(x > 0, jnp.sin, jnp.cos, x), ("cond",), 2),
        (lambda x: jax.lax.while_loop(lambda c: c < 9, lambda c: c * x, x), ("while",), 2),
        (lambda x: jax.lax.scan(lambda c, _: (c + x, c), x, length=3), ("scan",), 1),
        (lambda x: jax.checkpoint(jnp.sin)(x), ("remat", "remat2", "checkpoint"), 1),
    ],
)
def test_the_bodies_of_an_equation_are_closed_programs(function, name, programs):
    named = equations(function, 1.0)
    (equation,) = next((named[n] for n in name if n in named), [None])
    assert equation is not None, f"none of {name} among {sorted(named)}, {SEEN}"
    inner = bodies(equation)
    assert len(inner) == programs, f"{name}: {len(inner)} bodies, {SEEN}"
    assert all(isinstance(body, core.ClosedJaxpr) for body in inner), SEEN


def test_a_body_keeps_the_arrays_that_its_function_closes_over():
    table = jnp.arange(4.0)
    (equation,) = jax.make_jaxpr(jax.jit(lambda i: table[i]))(1).jaxpr.eqns
    (body,) = bodies(equation)
    assert len(body.consts) == len(body.jaxpr.constvars), SEEN
    assert any(np.array_equal(const, table) for const in body.consts), SEEN


def test_a_scan_tells_its_constants_from_what_it_carries():
    def step(carry, x):
        a, b = carry
        return (a * factor + x["u"], b + x["v"].sum() + shift), (a, b)

    factor, shift = jnp.arange(3.0), jnp.float32(2)

    def scanned(factor_, shift_, a, b, xs):
        nonlocal factor, shift
        factor, shift = factor_, shift_
        return jax.lax.scan(step, (a, b), xs, reverse=True)

    xs = {"u": jnp.ones((4, 3)), "v": jnp.ones((4, 2, 2))}
    named = equations(scanned, jnp.arange(3.0), jnp.float32(2), jnp.zeros(3), jnp.float32(0), xs)
    (scan,) = named["scan"]
    assert scan_of(scan) == (4, True, 2, 2), f"the parameters of a scan changed, {SEEN}"
    assert internals.repetitions(scan) == 4


def test_a_scan_whose_length_is_a_width_too():
    """Shapes alone decide: what is carried may have as many numbers as there are turns."""
    (scan,) = equations(
        lambda c, x: jax.lax.scan(lambda c, x: (c + x, x), c, x), jnp.zeros(4), jnp.ones((4, 4))
    )["scan"]
    assert scan_of(scan) == (4, False, 0, 1)


def test_a_while_tells_its_constants():
    def loop(limit, step, start):
        return jax.lax.while_loop(lambda c: c < limit, lambda c: c + step * limit, start)

    (equation,) = equations(loop, 9.0, 2.0, 0.0)["while"]
    assert internals.while_constants(equation) == (1, 2), f"parameters of a while, {SEEN}"


def test_products_and_convolutions_tell_what_they_sum_over():
    x, w = jnp.ones((5, 3)), jnp.ones((3, 2))
    (product,) = equations(jnp.matmul, x, w)["dot_general"]
    assert summed_terms(product) == summed_terms(product, 0) == 3, SEEN
    assert flops(product) == 2 * 3 * 5 * 2

    (batched,) = equations(
        lambda a, b: jnp.einsum("bij,bkj->bik", a, b), jnp.ones((4, 5, 3)), jnp.ones((4, 2, 3))
    )["dot_general"]
    assert summed_terms(batched) == 3
    assert flops(batched) == 2 * 3 * 4 * 5 * 2

    image, kernel = jnp.ones((1, 8, 8, 3)), jnp.ones((5, 5, 3, 7))
    numbers = ("NHWC", "HWIO", "NHWC")
    (convolution,) = equations(
        lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=numbers),
        image,
        kernel,
    )["conv_general_dilated"]
    assert summed_terms(convolution) == 75, SEEN
    assert flops(convolution) == 2 * 75 * 8 * 8 * 7
    (addition,) = equations(jnp.add, x, x)["add"]
    assert summed_terms(addition) == flops(addition) == 0


def test_a_sum_tells_its_axes():
    (equation,) = equations(lambda x: x.sum((0, 2)), jnp.ones((2, 3, 4)))["reduce_sum"]
    assert internals.reduced_axes(equation) == (0, 2), SEEN
    (equation,) = equations(lambda x: x.max(1), jnp.ones((2, 3)))["reduce_max"]
    assert internals.reduced_axes(equation) == (1,), SEEN


def test_a_gather_tells_the_last_row_of_its_table():
    (equation,) = equations(lambda t, i: t[i], jnp.ones((6, 2)), jnp.array([1, 2]))["gather"]
    assert internals.last_rows(equation) == (5,), SEEN
    (equation,) = equations(lambda t, i: t[i, i], jnp.ones((6, 2)), jnp.array([1, 0]))["gather"]
    assert internals.last_rows(equation) == (5, 1), SEEN


def written_here(x):
    return jnp.sin(x)


def test_equations_know_the_line_that_made_them():
    (sine,) = equations(written_here, 1.0)["sin"]
    line = written_here.__code__.co_firstlineno + 1
    assert (__file__, line) in list(internals.frames(sine)), f"source_info.traceback, {SEEN}"


def test_equations_of_one_expression_have_one_place():
    """A row that is spread over a column has the place of their product; a written axis its own."""

    def spread(column, row):
        return column * row

    def written(column, row):
        return row[None, :] * column

    changed = f"source_info_util.user_frame, or the lines and columns of what it gives, {SEEN}"
    for function in (spread, written):
        named = equations(function, jnp.ones((3, 1)), jnp.ones(3))
        first, product = (internals.place_of(named[n][0]) for n in ("broadcast_in_dim", "mul"))
        line = function.__code__.co_firstlineno + 1
        assert product[:3] == (__file__, line, line), changed
        assert (first == product) == (function is spread), changed


def test_equations_of_a_derivative_are_known():
    plain = equations(jnp.sin, 1.0)["sin"]
    derived = equations(jax.grad(jnp.sin), 1.0)["cos"]
    assert not any(map(internals.is_derivative, plain)), SEEN
    assert all(map(internals.is_derivative, derived)), SEEN


def test_equations_know_the_scope_they_stand_in():
    def scoped(x):
        with jax.named_scope("outer"), jax.named_scope("inner"):
            return jnp.sin(x)

    (sine,) = equations(scoped, 1.0)["sin"]
    assert internals.name_scopes(sine)[-2:] == ["outer", "inner"], SEEN


def test_a_program_knows_the_file_of_its_function():
    (call,) = next(e for n, e in equations(jax.jit(written_here), 1.0).items() if "jit" in n)
    file = internals.function_file(bodies(call)[0].jaxpr)
    assert os.path.basename(file) == os.path.basename(__file__), f"debug_info, {SEEN}"


def test_equations_that_are_evaluated_keep_the_line_that_made_them():
    (sine,) = equations(written_here, 1.0)["sin"]
    (again,) = equations(lambda x: internals.evaluate(sine, [x])[0], 1.0)["sin"]
    assert next(internals.frames(again)) == next(internals.frames(sine)), SEEN


def test_equations_can_be_evaluated_one_by_one():
    (product,) = equations(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 2)))["dot_general"]
    a, b = np.arange(6.0, dtype=np.float32).reshape(2, 3), np.eye(3, 2, dtype=np.float32)
    (result,) = internals.evaluate(product, [a, b])
    np.testing.assert_array_equal(result, a @ b)
    (scan,) = equations(lambda c: jax.lax.scan(lambda c, _: (c + 1, c), c, length=3), 0.0)["scan"]
    last, seen = internals.evaluate(scan, [jnp.float32(0)])
    assert last == 3
    assert seen.tolist() == [0, 1, 2]


def test_the_state_of_a_module_becomes_plain_arrays():
    class Module(nnx.Module):
        def __init__(self):
            self.normalize = nnx.BatchNorm(2, rngs=nnx.Rngs(0))

    _, params, rest = nnx.split(Module(), nnx.Param, ...)
    assert jax.tree.map(jnp.shape, internals.plain_arrays(params)) == {
        "normalize": {"bias": (2,), "scale": (2,)}
    }, SEEN
    leaves = jax.tree.leaves(internals.plain_arrays(rest))
    assert leaves
    assert all(isinstance(leaf, jax.Array) for leaf in leaves), f"nnx.as_pure, {SEEN}"


def test_the_streams_of_a_module_draw_what_nnx_would():
    key = jax.random.key(3)
    ours, theirs = internals.counted_rngs(key), nnx.Rngs(params=key, dropout=key)
    for _ in range(3):
        assert (ours.params() == theirs.params()).all(), f"nnx.Rngs, {SEEN}"
        assert (ours.dropout() == theirs.dropout()).all(), f"nnx.Rngs, {SEEN}"


# --- other libraries


def test_the_arguments_of_a_class_are_those_of_its_start():
    class Net(nnx.Module):
        def __init__(self, width: int = 3, *, rngs):
            self.width = width

    assert [one.name for one in parameters_of(Net)] == ["width", "rngs"]
    assert [one.name for one in parameters_of(partial(Net, width=4))] == ["rngs"]
    assert [one.name for one in parameters_of(lambda x, y=1: x)] == ["x", "y"]
    assert parameters_of(3) is None


@pytest.mark.parametrize("name", ["transform", "transform_with_state"])
def test_the_function_behind_a_haiku_network_is_known(name):
    hk = pytest.importorskip("haiku")

    def net(x, is_training):
        return x

    assert haiku_function(getattr(hk, name)(net)) is net


def test_the_loss_of_a_compiled_keras_model_is_known(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    assert keras_loss(model) is None
    model.compile(loss="mse")
    with keras.StatelessScope():
        assert float(keras_loss(model)(jnp.ones((3, 1)), jnp.zeros((3, 1)))) == 1
    assert keras_metrics(model) == (None, [])
    model.compile(loss="mse", metrics=["mae", keras.metrics.R2Score()])
    asked, named = keras_metrics(model)
    assert (named[0], type(named[1])) == ("mae", keras.metrics.R2Score)
    asked.build(jnp.ones((3, 1)), jnp.zeros((3, 1)))
    assert [type(one) for one in asked.metrics] == [
        keras.metrics.MeanAbsoluteError,
        keras.metrics.R2Score,
    ]


def test_a_program_is_run_with_its_calls_taken_apart_and_operations_replaced():
    @jax.custom_jvp
    def doubled(x):
        return 2 * jax.jit(lambda y: y @ jnp.ones((3, 2)))(x)

    doubled.defjvps(lambda dx, y, x: dx @ jnp.ones((3, 2)))

    @jax.custom_batching.sequential_vmap
    def summed(x):
        return jax.checkpoint(jnp.sin)(doubled(x)).sum()

    x = jnp.arange(6.0).reshape(2, 3)
    program = jax.make_jaxpr(summed)(x)
    assert internals.interpret(program, [x], {})[0] == summed(x)
    names = []

    def product(a, b, **parameters):
        names.append(parameters["dimension_numbers"])
        return jax.lax.dot_general(a, b, **parameters)

    inner = jax.make_jaxpr(lambda x: internals.interpret(program, [x], {"dot_general": product}))(x)
    assert names == [(((1,), (0,)), ((), ()))]
    assert {each.primitive.name for each in inner.eqns} & internals.CALLS == set()


def test_an_entry_of_the_cache_of_compiled_programs_has_its_name_once_it_is_whole(
    tmp_path, monkeypatch
):
    from jax._src.lru_cache import LRUCache

    keep_entries_whole()
    put = LRUCache.put
    keep_entries_whole()
    assert LRUCache.put is put, "once is enough"
    cache, seen = LRUCache(str(tmp_path), max_size=-1), []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda half, path: seen.append((half, path)))
    cache.put("program", b"machine code")  # as if the process were killed before the last step
    assert cache.get("program") is None
    ((half, path),) = seen
    replace(half, path)
    assert cache.get("program") == b"machine code"
    cache.put("program", b"other code")
    assert cache.get("program") == b"machine code", "what is there stays"
