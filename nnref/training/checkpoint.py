"""Checkpoints: where a set of runs stands, on disk, with a digest of every array beside it.

    folder/
      epoch-0000000120/
      epoch-0000000240/
        arrays/          written by Orbax
        digests          SHA-256 of every array and every file; the first line is that of the rest

A checkpoint takes its name only once it is complete, so what a crash leaves behind is never
mistaken for one. Orbax by itself restores a flipped byte without a word: hence the digests, and
two checkpoints instead of one. Those of the files are compared before Orbax opens any; those of
the arrays say that what was written and read is what was trained.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.errors import UserError

Tree = Any

KEPT = 2
NAME = "epoch-" + 10 * "[0-9]"


class Damaged(Exception):
    """A checkpoint does not hold what was saved."""


class OtherData(Exception):
    """A checkpoint is of a network that was trained on other data."""


def save(folder: str | os.PathLike[str], epoch: int, state: Tree, data: str = "") -> None:
    """Write a checkpoint, then delete all but this one and the one before.

    Checkpoints of later epochs are deleted too: runs that went back write their future anew. A
    folder is for one set of runs, and a state is any tree of JAX or NumPy arrays and typed keys.
    `data` is the fingerprint of what they are trained on.
    """
    folder = Path(folder).absolute()
    complete = folder / f"epoch-{epoch:010d}"
    partial = complete.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)

    leaves = by_path(state)
    arrays = {name: on_host(leaf) for name, leaf in leaves.items() if leaf.size}
    with_orbax(lambda ocp, orbax: orbax.save(partial / "arrays", args=ocp.StandardSave(arrays)))
    content = {
        "epoch": epoch,
        "data": data,
        "structure": {name: kind(leaf) for name, leaf in leaves.items()},
        "arrays": {name: array_digest(array) for name, array in arrays.items()},
        "files": file_digests(partial),
    }
    text = json.dumps(content, indent=1).encode()
    (partial / "digests").write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)

    if complete.exists():  # inside an epoch a stream saves it again; in between, neither is there
        complete.rename(complete.with_suffix(".replaced"))
    partial.rename(complete)
    kept = [path for path in checkpoints(folder) if path <= complete][-KEPT:]
    for path in [*checkpoints(folder), *folder.glob(NAME + ".*")]:
        if path not in kept:
            shutil.rmtree(path)


def restore(
    folder: str | os.PathLike[str], like: Tree, data: str = "", newer: Collection[str] = ()
) -> tuple[int, Tree] | None:
    """The newest checkpoint that is bit for bit what was saved, with the structure of `like`.

    One of other data than those of the fingerprint `data` is passed over. Leaves whose path is
    among the `newer` ones may be missing: they stay as they are in `like`.

    Returns:
        The number of the last finished epoch and the state, uncommitted on the default device
        (NumPy arrays where `like` has them), or None where there is no good checkpoint. A damaged
        one is warned about.

    Raises:
        UserError: for a checkpoint of another structure.
    """
    leaves = by_path(like)
    structure = {name: kind(leaf) for name, leaf in leaves.items()}
    good, damaged = None, []
    for path in reversed(checkpoints(Path(folder).absolute())):
        try:
            good = read(path, structure, data, newer)
            break
        except OtherData:
            continue
        except (Damaged, OSError) as error:
            damaged.append(f"{path.name} ({error})")
    if damaged:
        used = f"going on after epoch {good[0]}" if good else "there is no good one to go on from"
        warnings.warn(
            f"damaged checkpoint in {folder}: {' and '.join(damaged)}; {used}", stacklevel=2
        )
    if good is None:
        return None
    epoch, arrays = good
    state = [
        leaf if name in newer and name not in arrays else as_leaf(arrays.get(name), leaf)
        for name, leaf in leaves.items()
    ]
    return epoch, jax.tree.unflatten(jax.tree.structure(like), state)


def read(
    path: Path, structure: dict[str, str], data: str, newer: Collection[str]
) -> tuple[int, Mapping[str, np.ndarray]]:
    """Epoch and arrays of one checkpoint, verified.

    What Orbax raises over files that are as they were written is no damage, and is not caught.
    """
    digest, _, text = (path / "digests").read_bytes().partition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != digest:
        raise Damaged("digests is not what was written")
    content = json.loads(text)
    if data and content.get("data", data) != data:  # older checkpoints do not say theirs
        raise OtherData
    written = content["structure"]
    wanted = {n: k for n, k in structure.items() if n in written or n not in newer}
    if written != wanted:
        raise UserError(
            f"checkpoint {path} is of another structure: {difference(written, wanted)}; "
            "continue the experiment that wrote it, or choose another folder"
        )
    compare(content["files"], file_digests(path), "written")
    arrays = with_orbax(lambda _, orbax: orbax.restore(path / "arrays"))
    digests = {name: array_digest(array) for name, array in arrays.items()}
    compare(content["arrays"], digests, "saved")
    return content["epoch"], arrays


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a folder, oldest first."""
    return sorted(folder.glob(NAME))


def difference(written: dict[str, str], wanted: dict[str, str]) -> str:
    """What differs between two structures: the first array in words, the others as a number."""
    name, *others = [n for n in wanted | written if wanted.get(n) != written.get(n)]
    more = f" (and {len(others)} more)" if others else ""
    in_file, in_run = written.get(name, "missing"), wanted.get(name, "missing")
    return f"{name} is {in_file} there and {in_run} here{more}"


def compare(expected: Mapping[str, str], digests: Mapping[str, str], done: str) -> None:
    """Refuse digests that are not the expected ones; further ones do no harm."""
    for name in expected:
        if digests.get(name) != expected[name]:
            raise Damaged(f"{name} is {f'not what was {done}' if name in digests else 'missing'}")


def by_path(tree: Tree) -> dict[str, Any]:
    """The leaves of a tree by their path."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def kind(leaf: Any) -> str:
    """Type and shape in one word: `float32[20,2,4]`."""
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def is_key(leaf: Any) -> bool:
    """Whether a leaf holds typed keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def on_host(leaf: Any) -> np.ndarray:
    """What Orbax writes of a leaf."""
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def as_leaf(array: np.ndarray | None, like: Any) -> Any:
    """The inverse of `on_host`; of an array without elements Orbax has kept nothing."""
    if array is None:
        array = np.empty(like.shape, like.dtype)
    if isinstance(like, np.ndarray):
        return array
    data = jnp.asarray(array)
    if is_key(like):
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(jnp.empty(0, like.dtype)))
    return data


def array_digest(array: np.ndarray) -> str:
    """SHA-256 of an array with its type and shape."""
    sha = hashlib.sha256(kind(array).encode())
    sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return sha.hexdigest()


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint but the digests themselves."""
    digests = {}
    for path in sorted((folder / "arrays").rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                name = path.relative_to(folder).as_posix()
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def with_orbax(act: Callable[[Any, Any], Any]) -> Any:
    """Orbax, imported only now, and in a thread of its own.

    It runs and resets the event loop of the thread it is in, which may be that of a notebook.
    """
    import orbax.checkpoint as ocp

    # Of several processes of a run this one writes alone, and waits for no other.
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}
    )

    def call() -> Any:
        handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
            return act(ocp.args, checkpointer)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).result()
