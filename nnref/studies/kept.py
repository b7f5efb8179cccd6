"""The trained network of a page, kept beside it as `<page>.safetensors`, and called with rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.data import Dataset
from nnref.errors import UserError
from nnref.logbook.writer import Writer
from nnref.parts.target_kinds import target_kind
from nnref.training import checkpoint, train
from nnref.training.setup import Setup
from nnref.training.task import Functions

ENDING = ".safetensors"
MOST_BYTES = 2**28  # of the arrays of one network; larger ones are trained again when wanted


def network_path(page: Path, final: bool = False) -> Path:
    """The file of the network of a page: the one that is evaluated, or that of the last epoch."""
    return page.with_name(f"{page.stem}{'-final' if final else ''}{ENDING}")


def keep_networks(
    seeds: Sequence[int], writers: Mapping[int, Writer], states: train.TrainState
) -> None:
    """Write the network of each page beside it, and that of the last epoch where it is another one.

    A page says why its network is not kept, where it is not.

    Args:
        seeds: of the runs, in their order.
        writers: of their pages, by seed.
        states: after training, (runs, ...).
    """
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
    """Write arrays into a file that takes its name when it is complete."""
    from safetensors.numpy import save_file

    half = path.with_suffix(".half")
    save_file(dict(arrays), half)
    half.replace(path)


def kept_network(page: Path, functions: Functions) -> tuple[Any, Any] | None:
    """The parameters and the state that stand beside a page; None where they do not.

    Raises:
        UserError: for arrays that are not those of the page's network.
    """
    path = network_path(page)
    if not path.is_file():
        return None
    from safetensors.numpy import load_file

    arrays = load_file(path)
    params, state = jax.eval_shape(functions.init, jax.random.key(0))
    like = {"params": params, "state": state}
    leaves = checkpoint.by_path(like)
    if set(leaves) != set(arrays):
        raise UserError(f"{path}: its arrays are not those of the network of its page")
    made = [checkpoint.as_leaf(arrays[name], leaf) for name, leaf in leaves.items()]
    network = jax.tree.unflatten(jax.tree.structure(like), made)
    return network["params"], network["state"]


@dataclass(frozen=True)
class Loaded:
    """A trained network: called with rows as they stand in the world, it gives its outputs.

    Rows are scaled as those that it was trained on. `predict` gives the names of classes, or values
    in the targets' own unit.
    """

    setup: Setup
    dataset: Dataset
    params: Any = field(repr=False)
    model_state: Any = field(repr=False)

    @cached_property
    def network(self) -> Any:
        """The network in evaluation mode, compiled."""
        functions = self.setup.functions(self.setup.experiment.hyperparameters)
        return jax.jit(lambda x: functions.apply(self.params, self.model_state, x, None, False)[0])

    def __call__(self, x: Any) -> Any:
        """The outputs for rows."""
        layout = self.dataset.inputs
        if layout is not None:
            return self.network(jnp.asarray(layout.pack(x, "rows")))
        rows, shape = np.asarray(x), self.setup.inputs
        if rows.shape[1:] != shape:
            raise UserError(f"rows of shape {rows.shape[1:]} given; the network takes {shape}")
        if self.dataset.scaling is not None:
            mean, deviation = self.dataset.scaling
            rows = ((rows - mean) / deviation).astype(np.float32)
        return self.network(jnp.asarray(rows))

    def predict(self, x: Any) -> np.ndarray:
        """The names of the classes of rows, or the values that are predicted for them."""
        kind, outputs = target_kind(self.setup.experiment.loss.name), self(x)
        if self.dataset.classes:
            return np.asarray(self.dataset.classes)[np.asarray(kind.decide(outputs))]
        return np.asarray(kind.predict(outputs))


def rows_in(path: Path, dataset: Dataset) -> Any:
    """The inputs in a .csv with a header line, or a .npz with "x", or an array for each input.

    Raises:
        UserError: for a file that is not there, or has not the columns of the data.
    """
    if path.suffix not in (".csv", ".npz") or not path.is_file():
        raise UserError(
            f"{path}: give a .csv with a header line, or a .npz of arrays, that is here"
        )
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            if dataset.inputs is None and "x" not in arrays:
                raise UserError(f'{path}: it has {", ".join(arrays)}; inputs are called "x"')
            rows = {name: arrays[name] for name in arrays}
        return rows["x"] if dataset.inputs is None else rows
    import csv

    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    missing = [name for name in dataset.columns if name not in header]
    if missing:
        raise UserError(f"{path}: the column {missing[0]} is missing; it has {', '.join(header)}")
    places = [header.index(name) for name in dataset.columns] or range(len(header))
    try:
        return np.array([[float(line[place]) for place in places] for line in lines])
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
