"""The trained network of a page, kept beside it as `<page>.safetensors`, and called with rows."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.data import Dataset
from nnref.data.archives import every_array
from nnref.data.encoding import text_cells
from nnref.data.files import ENDINGS
from nnref.data.folders import new_images
from nnref.data.prepare import first_five, warn
from nnref.data.reading import read_table
from nnref.errors import UserError
from nnref.logbook.writer import Writer
from nnref.parts.target_kinds import target_kind
from nnref.studies.described import keep_columns
from nnref.training import checkpoint, train
from nnref.training.setup import Setup
from nnref.training.task import Functions

ENDING = ".safetensors"
MOST_BYTES = 2**28  # of the arrays of one network; larger ones are trained again when wanted


def network_path(page: Path, final: bool = False) -> Path:
    """The file of the network of a page: the one that is evaluated, or that of the last epoch."""
    return page.with_name(f"{page.stem}{'-final' if final else ''}{ENDING}")


def keep_networks(
    seeds: Sequence[int], writers: Mapping[int, Writer], states: train.TrainState, dataset: Dataset
) -> None:
    """Write the network of each page beside it, and that of the last epoch where it is another one.

    Of a table, what is known of its columns is written, too.

    A page says why its network is not kept, where it is not.

    Args:
        seeds: of the runs, in their order.
        writers: of their pages, by seed.
        states: after training, (runs, ...).
        dataset: what was trained on.
    """
    keep_columns(writers, dataset)
    best = jax.device_get(train.networks(states))
    last = jax.device_get(train.networks(states._replace(kept=None)))
    for run, seed in enumerate(seeds):
        if seed not in writers:
            continue
        for network, final in ((best, False), (last, True)):
            if final and states.kept is None:
                continue
            arrays = arrays_of(jax.tree.map(lambda leaf, run=run: leaf[run], network))
            size = sum(array.nbytes for array in arrays.values())
            if size > MOST_BYTES:
                words = f"not kept: {size / 2**20:.0f} MiB, the most are 256"
                writers[seed].facts({"network": words})
                continue
            write(network_path(writers[seed].path, final), arrays)


def arrays_of(network: Any) -> dict[str, np.ndarray]:
    """The arrays of a network, `(params, model_state)`, by their paths."""
    params, state = network
    leaves = checkpoint.by_path({"params": params, "state": state})
    return {name: np.ascontiguousarray(checkpoint.on_host(leaf)) for name, leaf in leaves.items()}


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays and their digest into a file that takes its name when it is complete."""
    from safetensors.numpy import save_file

    half = path.with_suffix(".half")
    save_file(dict(arrays), half, metadata={"sha256": digest_of(arrays)})
    half.replace(path)


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays in a file.

    Raises:
        UserError: where they are not those that were written.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            digest = (file.metadata() or {}).get("sha256")
    except (SafetensorError, ValueError, TypeError):  # no such file, a type that NumPy has not
        digest, arrays = "", {}
    if digest != digest_of(arrays):
        raise UserError(
            f"{path}: its bytes are not those that were written; without this file the network is "
            "trained again, to the same bits"
        )
    return arrays


def digest_of(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the names, types, shapes and numbers of arrays."""
    lines = [f"{name} {checkpoint.array_digest(arrays[name])}" for name in sorted(arrays)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def kept_network(page: Path, functions: Functions) -> tuple[Any, Any] | None:
    """The parameters and the state that stand beside a page; None where they do not.

    Raises:
        UserError: for arrays that are not those of the page's network.
    """
    path = network_path(page)
    if not path.is_file():
        return None
    arrays = read(path)
    params, state = jax.eval_shape(functions.init, jax.random.key(0))
    like = {"params": params, "state": state}
    leaves = checkpoint.by_path(like)
    if set(leaves) != set(arrays):
        raise UserError(f"{path}: its arrays are not those of the network of its page")
    made = [checkpoint.as_leaf(arrays[name], leaf) for name, leaf in leaves.items()]
    network = jax.tree.unflatten(jax.tree.structure(like), made)
    return network["params"], network["state"]


@dataclass(frozen=True, repr=False)
class LoadedNetwork:
    """A trained network: called with rows as they stand in the world, it gives its outputs.

    Rows are scaled as those that it was trained on. `predict` gives the names of classes, or values
    in the targets' own unit.
    """

    setup: Setup
    dataset: Dataset
    params: Any
    model_state: Any

    def __repr__(self) -> str:
        model, inputs = self.setup.experiment.model.name, self.setup.inputs
        columns = f" ({first_five(self.dataset.columns)})" if self.dataset.columns else ""
        answers = first_five(self.dataset.classes) or f"{self.setup.outputs} values"
        return f"<{model}: rows of {' x '.join(map(str, inputs))}{columns} -> {answers}>"

    @cached_property
    def network(self) -> Any:
        """The network in evaluation mode, compiled; it takes rows that are scaled."""
        functions = self.setup.functions(self.setup.experiment.hyperparameters)
        return jax.jit(lambda x: functions.apply(self.params, self.model_state, x, None, False)[0])

    def function(self, *arrays: Any) -> Any:
        """The outputs for rows as they stand in the world, as one function of JAX.

        Inputs that are several arrays go in one after the other.
        """
        layout = self.dataset.inputs
        x = arrays[0] if layout is None else layout.joined(arrays)
        if self.dataset.scaling is not None:
            mean, deviation = (np.float32(part) for part in self.dataset.scaling)
            x = (x - mean) / deviation
        return self.in_their_unit(self.network(x))

    def __call__(self, x: Any) -> Any:
        """The outputs for rows."""
        layout = self.dataset.inputs
        if layout is not None and self.dataset.encoder is None:
            return self.network(jnp.asarray(layout.pack(x, "rows")))
        rows, shape = np.asarray(x), self.setup.inputs
        if rows.shape[1:] != shape:
            wanted = ", ".join(map(str, ("rows", *shape)))
            raise UserError(f"an array of shape {rows.shape} given; the network takes ({wanted})")
        if self.dataset.scaling is not None:
            mean, deviation = self.dataset.scaling
            rows = ((rows - mean) / deviation).astype(np.float32)
        return self.in_their_unit(self.network(jnp.asarray(rows)))

    def in_their_unit(self, outputs: Any) -> Any:
        """Outputs that stand for values, in the unit of the targets, which may have been scaled."""
        if self.dataset.target_scaling is None:
            return outputs
        mean, deviation = (np.float32(part) for part in self.dataset.target_scaling)
        return outputs * deviation + mean

    def predict(self, x: Any) -> np.ndarray:
        """The names of the classes of rows, or the values that are predicted for them."""
        kind, outputs = target_kind(self.setup.experiment.loss.name), self(x)
        if self.dataset.classes:
            return np.asarray(self.dataset.classes)[np.asarray(kind.decide(outputs))]
        return np.asarray(kind.predict(outputs))


def rows_in(path: Path, dataset: Dataset) -> Any:
    """The inputs in a table with a header line, or a .npz with "x", or an array for each input.

    Of images, they may be in a folder, or an image alone.

    Raises:
        UserError: for a file that is not there, or has not the columns of the data.
    """
    if dataset.files and path.exists() and path.suffix.lower() != ".npz":
        return new_images(path, dataset.train.x.shape[1:])
    if not path.name.lower().endswith(ENDINGS) or not path.is_file():
        raise UserError(
            f"{path}: give a .csv with a header line, or a .npz of arrays, that is here"
        )
    try:
        if path.suffix.lower() != ".npz":
            return rows_of_table(path, dataset)
        arrays = every_array(path)
    except UserError as error:
        raise UserError(str(error).removeprefix("data.path: ")) from None
    if dataset.inputs is not None:
        return arrays
    if "x" not in arrays:
        raise UserError(f'{path}: it has {", ".join(arrays)}; inputs are called "x"')
    return arrays["x"]


def rows_of_table(path: Path, dataset: Dataset) -> np.ndarray:
    """The inputs in a table, by the names of the columns of the data where these have names.

    A warning tells of gaps that were filled, and of categories that no training row had.
    """
    encoder = dataset.encoder
    if dataset.inputs is not None and encoder is None:
        names = ", ".join(dataset.inputs.names)
        raise UserError(f"{path}: the inputs are several arrays; give a .npz with {names}")
    table = read_table(path, () if encoder is None else encoder.missing)
    wanted = list(dataset.columns or table) if encoder is None else list(encoder.inputs)
    absent = [name for name in wanted if name not in table]
    if absent:
        several = (
            f"the columns {first_five(absent)} are" if absent[1:] else f"the column {absent[0]} is"
        )
        raise UserError(f"{path}: {several} missing; it has {', '.join(table)}")
    if encoder is not None:
        for warning in encoder.doubts(table):
            warn(f"{path}: {warning}")
        try:
            return encoder(table)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    for name in wanted:
        column = table[name]
        if column.kind != "number" or column.missing.any():
            bad = "" if column.missing.any() else text_cells(column)[0]
            raise UserError(f'{path}: in the column {name} "{bad}" is no number')
    rows = np.stack([table[name].cells for name in wanted], axis=1)
    shape = dataset.train.x.shape[1:]
    return rows.reshape(-1, *shape) if rows.shape[1] == np.prod(shape) else rows
