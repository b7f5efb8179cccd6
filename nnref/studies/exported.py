"""The trained network of a page as a file that needs no nnref: of ONNX, or of StableHLO."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.errors import UserError
from nnref.internals import interpret
from nnref.studies.kept import LoadedNetwork

ENDINGS = {"onnx": ".onnx", "stablehlo": ".stablehlo"}
ROWS = (1, 5)  # how many rows the file is tried with: it takes any number
PLATFORMS = ("cpu", "cuda", "tpu")
CLOSE = 1e-4  # of the largest output: programs add in other orders


def export(network: LoadedNetwork, path: Path, to: str) -> float:
    """Write a network as a file, and run the file for some training rows.

    The file takes rows as they stand in the world, any number of them, and gives the outputs. One
    of StableHLO is read with `jax.export.deserialize`.

    Returns:
        The largest difference from the outputs here, over the largest of these.

    Raises:
        UserError: for a missing library, a network that it does not take, and other outputs.
    """
    write, run = {"onnx": (write_onnx, run_onnx), "stablehlo": (write_hlo, run_hlo)}[to]
    difference = 0.0
    rows = example_rows(network)
    half = path.with_suffix(f".half{path.suffix}")
    try:
        write(network, [row[:1] for row in rows], half)
        for count in ROWS:
            some = [row[:count] for row in rows]
            ours = jax.tree.leaves(network.function(*some))
            largest = max(float(jnp.abs(each).max()) for each in ours)
            pairs = zip(run(half, some), ours, strict=True)
            gap = max(float(np.abs(np.asarray(a) - b).max()) for a, b in pairs)
            difference = max(difference, gap / largest)
        if not difference <= CLOSE:
            raise UserError(f"{path}: its outputs differ by {difference:.1g} of the largest one")
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
    return difference


def example_rows(network: LoadedNetwork) -> list[np.ndarray]:
    """Training rows as they stand in the world, of each array of the inputs."""
    dataset = network.dataset
    x, layout = dataset.train.x[: max(ROWS)], dataset.inputs
    if layout is not None:
        return [np.asarray(leaf) for leaf in jax.tree.leaves(layout.unpack(jnp.asarray(x)))]
    if dataset.scaling is not None:
        mean, deviation = dataset.scaling
        x = (x * deviation + mean).astype(np.float32)
    return [x]


def write_hlo(network: LoadedNetwork, rows: list[np.ndarray], path: Path) -> None:
    """Write a network as jax.export does."""
    try:
        import flatbuffers  # noqa: F401
    except ImportError:
        raise missing("stablehlo", "flatbuffers") from None
    (count,) = jax.export.symbolic_shape("rows")
    shapes = [jax.ShapeDtypeStruct((count, *row.shape[1:]), row.dtype) for row in rows]
    exported = jax.export.export(jax.jit(network.function), platforms=PLATFORMS)(*shapes)
    path.write_bytes(exported.serialize())


def run_hlo(path: Path, rows: list[np.ndarray]) -> Any:
    """The outputs of a file of StableHLO."""
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    return jax.tree.leaves(exported.call(*rows))


def write_onnx(network: LoadedNetwork, rows: list[np.ndarray], path: Path) -> None:
    """Write a network as jax2onnx does."""
    try:
        from jax2onnx import to_onnx  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise missing("onnx", "jax2onnx") from None

    def plain(*arrays: Any) -> Any:
        program = jax.make_jaxpr(network.function)(*arrays)
        return interpret(program, arrays, {"dot_general": product})

    shapes = [("rows", *row.shape[1:]) for row in rows]
    to_onnx(plain, shapes, return_mode="file", output_path=str(path), export_mode="web")


def product(a: Any, b: Any, *, dimension_numbers: Any, **others: Any) -> Any:
    """`lax.dot_general` that sums over the last axes of a: jax2onnx takes all of them for such."""
    (a_summed, b_summed), (a_batch, b_batch) = dimension_numbers
    batch, summed = len(a_batch), len(a_summed)
    a_free = [axis for axis in range(a.ndim) if axis not in (*a_batch, *a_summed)]
    b_free = [axis for axis in range(b.ndim) if axis not in (*b_batch, *b_summed)]
    a = jax.lax.transpose(a, (*a_batch, *a_free, *a_summed))
    b = jax.lax.transpose(b, (*b_batch, *b_summed, *b_free))
    last, both = range(a.ndim - summed, a.ndim), range(batch)
    axes = (tuple(last), tuple(range(batch, batch + summed))), (tuple(both), tuple(both))
    return jax.lax.dot_general(a, b, axes, **others)


def run_onnx(path: Path, rows: list[np.ndarray]) -> Any:
    """The outputs of a file of ONNX."""
    import onnxruntime  # pyright: ignore[reportMissingImports]

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return session.run(None, dict(zip(names, rows, strict=True)))


def missing(to: str, library: str) -> UserError:
    """The error for a library that is not installed."""
    return UserError(f'--to {to} needs {library}; install it: pip install "nnref[{to}]"')
