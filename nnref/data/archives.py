"""Archives: the arrays of a `.npz`, whole or by their splits, and refused in words."""

import math
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from nnref.data.prepare import Split, host_memory
from nnref.errors import UserError, nearest

SPLIT = re.compile(r"(.+)_(train|valid|validation|val|dev|test)")
SAME = {"validation": "valid", "val": "valid", "dev": "valid"}


def read_npz(path: Path, target: str) -> tuple[str, dict[str, Split]]:
    """Arrays of an archive: inputs under "x" (or the only other name), targets under `target`.

    Returns:
        The name of the inputs, and the splits.

    An archive may hold its splits: "x", "x_valid" and "x_test", or "x_train" and "x_test" as Keras
    has them, and targets likewise. One without has "train" alone.

    Raises:
        UserError: for a file that is no such archive, and arrays that are not there or no numbers.
    """
    with archive_at(path) as archive:
        names = archive.files
        splits = named_splits(names)
        target = target.removesuffix("_train")
        if not target:
            others = [name for name in splits if name not in ("x", "X")]
            one = f'; write "target": "{others[0]}"' if len(others) == 1 else ""
            raise UserError(
                f"data.target: name what is to be predicted; {path} has {', '.join(names)}{one}"
            )
        if "train" not in splits.get(target, {}):
            raise UserError(
                f'data.target: {path} has no array "{target}"; it has {", ".join(names)}'
                f"{nearest(target, list(splits))}"
            )
        others = [name for name in splits if name != target]
        plain = next((name for name in ("x", "X") if name in others), None)
        inputs = plain or (others[0] if len(others) == 1 else None)
        if inputs is None or "train" not in splits[inputs]:
            raise UserError(
                f'data.path: {path} must hold its inputs in an array called "x"; '
                f"beside the target it has {', '.join(others) or 'nothing'}"
            )
        alone = set(splits[inputs]) ^ set(splits[target])
        if alone:
            one = next(iter(sorted(alone)))
            held, lacks = (inputs, target) if one in splits[inputs] else (target, inputs)
            raise UserError(
                f'data.path: {path} has "{splits[held][one]}" and no "{lacks}_{one}"; a split has '
                "inputs and targets"
            )
        return inputs, {
            split: Split(
                array_of(path, archive, name), array_of(path, archive, splits[target][split])
            )
            for split, name in splits[inputs].items()
        }


def named_splits(names: list[str]) -> dict[str, dict[str, str]]:
    """The names of arrays by what they hold and by their split: "x_valid" as x, valid."""
    splits: dict[str, dict[str, str]] = {}
    for name in names:
        parted = SPLIT.fullmatch(name)
        base, split = (parted[1], parted[2]) if parted else (name, "train")
        splits.setdefault(base, {})[SAME.get(split, split)] = name
    return splits


def every_array(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an archive, by name; errors as `read_npz` has them."""
    with archive_at(path) as archive:
        return {name: array_of(path, archive, name) for name in archive.files}


@contextmanager
def archive_at(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """An archive of arrays, open."""
    with path.open("rb") as content:  # NumPy leaves a file open that is no archive
        try:
            archive = np.load(content, allow_pickle=False)
        except (ValueError, EOFError, zipfile.BadZipFile):
            raise UserError(
                f"data.path: {path} is no archive of arrays; write it with numpy.savez"
            ) from None
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UserError(f"data.path: {path} is one array and no archive; use numpy.savez")
        yield archive


def array_of(path: Path, archive: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    """One array of an archive, with an axis of rows."""
    assert archive.zip is not None, "an archive that is open has one"
    refuse_oversized(path, archive.zip, name)
    try:
        array = archive[name]
    except ValueError:  # objects are pickled, and a pickle may run any code
        raise UserError(
            f'data.path: "{name}" of {path} holds Python objects; save it as an array of numbers '
            "or text"
        ) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise UserError(f'data.path: "{name}" of {path} is damaged: {error}') from None
    if array.ndim == 0:
        raise UserError(f'data.path: "{name}" of {path} is a single value, without rows')
    return array


def refuse_oversized(path: Path, archive: zipfile.ZipFile, name: str) -> None:
    """Raise for an array whose header asks for other bytes than there are, or for too many.

    NumPy takes the memory before it reads.
    """
    try:
        member = archive.getinfo(f"{name}.npy")
        with archive.open(member) as content:
            version = np.lib.format.read_magic(content)
            formats = np.lib.format
            first = version == (1, 0)
            read = formats.read_array_header_1_0 if first else formats.read_array_header_2_0
            shape, _, dtype = read(content)
            asked, held = math.prod(shape) * dtype.itemsize, member.file_size - content.tell()
    except (KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f'data.path: "{name}" of {path} is damaged: {error}') from None
    if asked != held and not dtype.hasobject:
        raise UserError(
            f'data.path: "{name}" of {path} is damaged: its header tells of {asked:,} bytes, and '
            f"{held:,} follow"
        )
    memory = host_memory()
    if held > memory / 2:
        raise UserError(
            f'data.path: "{name}" of {path} takes {held / 2**30:,.1f} GB, and the memory is '
            f"{memory / 2**30:,.1f} GB; save fewer rows, or in float32"
        )
