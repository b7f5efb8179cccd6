"""Devices: one run on several of them, each with its share of the rows of every batch.

The program stays the one of a single device. A few of its arrays are told how they are to lie on
the devices, and XLA's partitioner makes each device's part of it, and adds up over all of them what
is a sum over the batch: the loss, the gradients, the means of batch normalization. Where the rows
of a batch do not divide, XLA fills up the last device and leaves what it has filled in out of every
sum, so that an uneven batch is exact.

The data lie on every device as a whole; a stream brings each device the rows of its own.
"""

from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nnref.errors import UserError
from nnref.training import processes
from nnref.training.checkpoint import as_leaf, is_key, on_host
from nnref.training.task import Array, Functions, Tree
from nnref.training.train import Builder, Hyperparameters, Plan

ROWS = "data"  # the axis of the mesh over which the rows of a batch are split


def count_of(devices: int | str) -> int:
    """How many devices the key `devices` asks for.

    Raises:
        UserError: for more than there are and, of several processes, for other than all of them.
    """
    here = jax.device_count()
    asked = here if devices == "all" else int(devices)
    if asked > here:
        kind = jax.devices()[0].platform
        split = f"; XLA_FLAGS=--xla_force_host_platform_device_count={asked} makes so many of a CPU"
        raise UserError(
            f"devices: {asked} asked for, and there {'is' if here == 1 else 'are'} {here} "
            f"({kind}){split if kind == 'cpu' else ''}"
        )
    if jax.process_count() > 1 and processes.HERE is None:
        raise UserError("devices: processes have to be started as: nnref run --coordinator ...")
    if jax.process_count() > 1 and asked != here:
        raise UserError(
            f"devices: {asked} asked for, and the {jax.process_count()} processes of this run have "
            f'{here}; give "all"'
        )
    return asked


@cache
def mesh_of(devices: int) -> Mesh:
    """The first so many devices in a row."""
    chosen = jax.devices()[:devices]
    return jax.make_mesh((devices,), (ROWS,), axis_types=(AxisType.Auto,), devices=chosen)


class Spread(NamedTuple):
    """A builder whose functions and optimizer compute on all devices of a mesh."""

    setup: Builder
    mesh: Mesh
    shard: bool  # whether each device holds no more than its share of the parameters

    def __call__(
        self, hyperparameters: Hyperparameters
    ) -> tuple[Functions, optax.GradientTransformation]:
        """Functions whose batches are split over the devices, and their optimizer."""
        functions, optimizer = self.setup(hyperparameters)

        def init(key: Array) -> tuple[Tree, Tree]:
            params, model_state = functions.init(key)
            return self.held(params), self.everywhere(model_state)

        def apply(
            params: Tree, model_state: Tree, x: Array, key: Array | None, train: bool
        ) -> tuple[Any, Tree]:
            gathered = self.everywhere(self.held(params))
            outputs, after = functions.apply(gathered, model_state, self.split(x), key, train)
            return self.split(outputs), self.everywhere(after)

        return functions._replace(init=init, apply=apply), self.holding(optimizer)

    def holding(self, optimizer: Any) -> Any:
        """The same optimizer; its state lies on the devices as the parameters do."""

        def init(params: Tree) -> Tree:
            return self.held(optimizer.init(params))

        @wraps(optimizer.update)  # what it takes is read from its signature
        def update(grads: Tree, state: Tree, params: Tree = None, **extra: Any) -> Any:
            updates, state = optimizer.update(self.held(grads), state, params, **extra)
            return self.held(updates), self.held(state)

        return type(optimizer)(init, update)

    def split(self, tree: Tree) -> Tree:
        """Arrays of rows, (batch, ...), each device with some of the rows."""
        return self.laid(tree, lambda leaf: PartitionSpec(ROWS) if leaf.ndim else PartitionSpec())

    def everywhere(self, tree: Tree) -> Tree:
        """Arrays that every device has as a whole."""
        return self.laid(tree, lambda leaf: PartitionSpec())

    def held(self, tree: Tree) -> Tree:
        """Arrays as they lie from one step to the next: parameters, and the optimizer's state."""
        return self.laid(tree, self.spec)

    def spec(self, leaf: Any, first: int = 0) -> PartitionSpec:
        """How an array lies between two steps: by its largest axis that divides, or as a whole.

        Axes before the `first` are none of its own, as that of the runs.
        """
        devices = self.mesh.size
        axes = [axis for axis in range(first, leaf.ndim) if leaf.shape[axis] % devices == 0]
        if not self.shard or is_key(leaf) or not axes:
            return PartitionSpec()
        largest = max(axes, key=lambda axis: leaf.shape[axis])
        return PartitionSpec(*(ROWS if axis == largest else None for axis in range(leaf.ndim)))

    def laid(self, tree: Tree, spec: Callable[[Any], PartitionSpec]) -> Tree:
        """The arrays of a traced tree, each where its spec says."""

        def placed(leaf: Any) -> Any:
            return jax.lax.with_sharding_constraint(leaf, NamedSharding(self.mesh, spec(leaf)))

        return jax.tree.map(placed, tree)


def spread(setup: Builder, plan: Plan) -> Builder:
    """The builder of a run on the devices of its plan: the given one, where that is a single one.

    Raises:
        UserError: for more devices than there are.
    """
    if plan.devices == 1 or (count := count_of(plan.devices)) == 1:
        return setup
    return Spread(setup, mesh_of(count), plan.shard == "params")


def shares(setup: Builder) -> int:
    """Of how many shares of the parameters a device holds one."""
    return setup.mesh.size if isinstance(setup, Spread) and setup.shard else 1


# --- arrays of the host ---------------------------------------------------------------------------


def placed(setup: Builder, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arrays of the host on the device, or whole on every device."""
    if not isinstance(setup, Spread):
        return jax.device_put(data)
    everywhere = NamedSharding(setup.mesh, PartitionSpec())
    return jax.tree.map(lambda leaf: on_devices(np.asarray(leaf), everywhere), data)


def placed_states(setup: Builder, states: Tree) -> Tree:
    """States of runs, (runs, ...), where those of a run that was not cut short would lie."""
    if not isinstance(setup, Spread):
        return states

    def put(leaf: Any) -> Any:
        if is_key(leaf):
            whole = NamedSharding(setup.mesh, PartitionSpec())
            data = on_devices(np.asarray(jax.random.key_data(leaf)), whole)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return on_devices(np.asarray(leaf), NamedSharding(setup.mesh, setup.spec(leaf, first=1)))

    return jax.tree.map(put, states)


def own_rows(setup: Builder, rows: np.ndarray) -> np.ndarray:
    """Those of the rows of a batch that the devices of this process compute with.

    All of them where they do not divide: then every device gets the whole batch.
    """
    if not isinstance(setup, Spread) or len(rows) % setup.mesh.size:
        return rows
    share = len(rows) // setup.mesh.size
    mine = [device.process_index == jax.process_index() for device in setup.mesh.devices.flat]
    return rows[mine.index(True) * share :][: sum(mine) * share]  # those of a process lie together


def placed_batches(setup: Builder, group: Any, rows: int) -> Any:
    """Stacked batches of so many rows, (batches, own rows, ...), each row on its device."""
    if not isinstance(setup, Spread):
        return group
    spec = PartitionSpec() if rows % setup.mesh.size else PartitionSpec(None, ROWS)
    lying = NamedSharding(setup.mesh, spec)

    def placed(own: np.ndarray) -> Array:
        whole = (len(own), rows, *own.shape[2:])
        return jax.make_array_from_process_local_data(lying, own, whole)

    return jax.tree.map(placed, group)


def on_devices(array: np.ndarray, sharding: NamedSharding) -> Array:
    """An array of the host on devices, of which some may belong to other processes."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def whole(tree: Tree) -> Tree:
    """Arrays that this process can read, of which it may hold a part; all processes call it."""
    if jax.process_count() == 1:
        return tree

    def read(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_replicated:
            return leaf
        everywhere = NamedSharding(leaf.sharding.mesh, PartitionSpec())  # pyright: ignore
        return jax.jit(lambda leaf: leaf, out_shardings=everywhere)(leaf)

    return jax.tree.map(read, tree)


def from_first(tree: Tree | None, like: Callable[[], Tree]) -> Tree:
    """A tree of arrays that process 0 has, in every process; `like` gives its shapes."""
    if processes.HERE is None:
        return tree
    shapes = like()
    leaves, structure = jax.tree.flatten(shapes)

    def blank(leaf: Any) -> np.ndarray:
        shape = jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf
        return np.zeros(shape.shape, shape.dtype)

    arrays = [blank(leaf) for leaf in leaves]
    if tree is not None:
        arrays = [on_host(leaf) for leaf in jax.tree.leaves(tree)]
    sent = multihost_utils.broadcast_one_to_all(arrays, processes.HERE.index == 0)
    read = [as_leaf(np.asarray(a), leaf) for a, leaf in zip(sent, leaves, strict=True)]
    return jax.tree.unflatten(structure, read)


def facts(devices: int | str) -> dict[str, str]:
    """What a page says of the devices of its run; nothing of a single one."""
    count = 1 if devices == 1 else count_of(devices)
    return {"devices": str(count)} if count > 1 else {}
