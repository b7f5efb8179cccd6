"""A user's own data, from a `.csv` or `.npz` file."""

import csv
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np

from nnref.bounds import Index, Probability
from nnref.data.prepare import (
    Dataset,
    averaged,
    column_name,
    first_five,
    mean_and_deviation,
    refuse_nonfinite,
    split_rows,
    standardize,
    warn,
    worst,
)
from nnref.data.targets import is_one_hot
from nnref.errors import UserError, nearest

MISSING = {"", "na", "n/a", "nan", "null", "none", "?", "-"}
"""How tables spell a cell without a number, in lower case."""


# --- tables -------------------------------------------------------------------------------------


def read_csv(path: Path, target: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Inputs (rows, columns) and targets (rows,) of a table, and the names of its input columns.

    Raises:
        UserError: for a file that is no table with a header line, a target that it does not have,
            and inputs that are no numbers.
    """
    header, rows = read_table(path)
    if target not in header:
        raise UserError(
            f'data.target: {path} has no column "{target}"; its columns are '
            f"{', '.join(header)}{nearest(target, header)}"
        )
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    y = column_of_targets(columns.pop(target))
    if not columns:
        raise UserError(f"data.path: {path} has no column beside the target")
    numbers = {name: as_numbers(cells) for name, cells in columns.items()}
    text = {name: others for name, (_, others) in numbers.items() if others}
    if text:
        named = [f'"{name}" ({len(cells)} like "{cells[0]}")' for name, cells in text.items()]
        raise UserError(
            f"data.path: {len(text)} columns of {path} hold cells that are no numbers: "
            f"{first_five(named)}; encode them as numbers, or remove the columns"
        )
    return np.stack([column for column, _ in numbers.values()], axis=1), y, tuple(columns)


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """The names in the header line and the cells below it, all rows of one length."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            first = lines.readline()
            lines.seek(0)
            # Spreadsheets write semicolons or tabs where the comma is the decimal point.
            reader = csv.reader(lines, delimiter=max(",;\t", key=first.count), strict=True)
            rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except UnicodeDecodeError as error:
        raise UserError(
            f"data.path: {path} is no UTF-8 text (byte {error.start}); save it as CSV in UTF-8"
        ) from None
    except csv.Error as error:
        raise UserError(f"data.path: {path} is no readable table: {error}") from None
    if len(rows) < 2:
        raise UserError(f"data.path: {path} has no rows below its header line")
    header = [name.strip() for name in rows[0][1]]
    for name in header:
        if not name:
            raise UserError(
                f"data.path: column {header.index(name) + 1} of {path} has no name in the header "
                "line; name it, or remove it if it only numbers the rows"
            )
        if header.count(name) > 1:
            raise UserError(f'data.path: {path} has {header.count(name)} columns called "{name}"')
    ragged = [number for number, row in rows[1:] if len(row) != len(header)]
    if ragged:
        raise UserError(
            f"data.path: {len(ragged)} rows of {path} have another number of cells than the "
            f"{len(header)} of the header, the first in line {ragged[0]}"
        )
    return header, [row for _, row in rows[1:]]


def as_numbers(cells: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Cells as float64, those without a number NaN; and the cells that are text."""
    try:
        return np.array(cells, np.float64), []
    except ValueError:
        numbers = [number_of(cell) for cell in cells]
        text = [cell for cell, number in zip(cells, numbers, strict=True) if number is None]
        return np.array(numbers, np.float64), text


def number_of(cell: str) -> float | None:
    """The number of a cell: NaN where it holds nothing, or a word for it; None for other text."""
    if cell.strip().lower() in MISSING:
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        return None


def column_of_targets(cells: Sequence[str]) -> np.ndarray:
    """Targets as float64 where every cell is a number or missing, else as text."""
    numbers, others = as_numbers(cells)
    if not others:
        return numbers
    text = np.array([cell.strip() for cell in cells])
    empty = text == ""
    if empty.any():
        raise UserError(
            f"data.target: {empty.sum()} of {len(text)} targets are missing, the first in row "
            f"{empty.argmax() + 1}; remove or fill them first"
        )
    return text


# --- archives -----------------------------------------------------------------------------------


def read_npz(path: Path, target: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Arrays of an archive: inputs under "x" (or the only other name), targets under `target`.

    Raises:
        UserError: for a file that is no such archive, and arrays that are not there or no numbers.
    """
    with archive_at(path) as archive:
        names = archive.files
        if target not in names:
            raise UserError(
                f'data.target: {path} has no array "{target}"; it has {", ".join(names)}'
                f"{nearest(target, names)}"
            )
        others = [name for name in names if name != target]
        inputs = "x" if "x" in others else others[0] if len(others) == 1 else None
        if inputs is None:
            raise UserError(
                f'data.path: {path} must hold its inputs in an array called "x"; '
                f"beside the target it has {', '.join(others) or 'nothing'}"
            )
        return array_of(path, archive, inputs), array_of(path, archive, target), ()


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
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if held > memory / 2:
        raise UserError(
            f'data.path: "{name}" of {path} takes {held / 2**30:,.1f} GB, and the memory is '
            f"{memory / 2**30:,.1f} GB; save fewer rows, or in float32"
        )


READERS = {".csv": read_csv, ".npz": read_npz}


# --- the member of the family -------------------------------------------------------------------


def file(
    *,
    path: str,
    target: str,
    kind: Literal["auto", "classes", "values"] = "auto",
    valid: Probability = 0.15,
    test: Probability = 0.15,
    standardized: bool = True,
    seed: Index = 0,
) -> Dataset:
    """A table of the user's own: a `.csv` with a header line, or a `.npz` of arrays.

    A relative path is looked up from the folder in which the command runs. Inputs of an archive may
    have any shape (rows, ...). They are standardized column by column; images, which are arrays
    of four axes or of bytes, channel by channel; other arrays of three axes, like series, by their
    last axis. Targets may also be one-hot rows, which are read as classes.

    Args:
        path: the file.
        target: the column or array to predict; a `.npz` holds its inputs in "x".
        kind: "classes", "values", or "auto": classes where targets are text, truth values or at
            most 20 whole numbers that occur twice on average, else values.
        valid: share of the rows for validation.
        test: share of the rows for the test.
        standardized: shift and scale inputs by the mean and deviation of the training rows.
        seed: of the split.
    """
    where = Path(path).expanduser()
    reader = READERS.get(where.suffix.lower())
    if reader is None:
        raise UserError(f"data.path: {path} ends in none of {', '.join(READERS)}")
    if not where.is_file():
        raise UserError(f"data.path: there is no file {where.resolve()}")
    try:
        x, y, columns = reader(where, target)
    except OSError as error:
        raise UserError(f"data.path: {path}: {(error.strerror or 'unreadable').lower()}") from None
    if x.dtype.kind not in "fiub":
        raise UserError(f"data.path: the inputs of {path} have dtype {x.dtype}, not numbers")
    if len(x) != len(y):
        raise UserError(f"data.path: {path} has {len(x)} rows of inputs and {len(y)} targets")
    if len(x) == 0:
        raise UserError(f"data.path: {path} has no rows")
    x = x[:, None] if x.ndim == 1 else x
    y, classes = targets(where.name, y, kind)
    # Before any statistics: one NaN would spread over its column and hide where it was.
    refuse_nonfinite(where.name, "inputs", x, columns)
    refuse_large(where.name, "inputs", x, columns)
    # Standardized from the numbers of the file: in float32 those of a clock are all alike.
    parts = split_rows(x, y, valid=valid, test=test, seed=seed, stratify=bool(classes))
    warn_constant(where.name, parts.train.x, columns)
    scaling = mean_and_deviation(parts.train.x, averaged(x)) if standardized else None
    if standardized:
        parts = standardize(*parts, axis=averaged(x))
    else:
        warn_coarse(where.name, "inputs", x, columns)
        parts = parts._make(part and part._replace(x=part.x.astype(np.float32)) for part in parts)
    return Dataset(*parts, classes=classes, columns=columns, scaling=scaling)


def targets(
    name: str, y: np.ndarray, kind: Literal["auto", "classes", "values"]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Targets as integer classes with their names, or as float32 values without; see `file`.

    They are (rows,), (rows, 1), one-hot (rows, classes), or values (rows, ...).

    Raises:
        UserError: for targets that are no numbers or text, are missing or infinite, or cannot be
            of that kind.
    """
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8")
    text = y.dtype.kind == "U"
    if not text and y.dtype.kind not in "fiub":
        raise UserError(f"data.target: targets have dtype {y.dtype}; numbers or text are allowed")
    refuse_nonfinite(name, "targets", y, ())
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if kind != "values" and y.ndim == 2 and is_one_hot(y):
        y = y.argmax(axis=1)
        kind = "classes"
    if kind == "auto":
        kind = "classes" if look_like_classes(y) else "values"
    if kind == "values":
        if text:
            raise UserError('data.kind: targets are text; "values" needs numbers')
        refuse_large(name, "targets", y, ())
        warn_coarse(name, "targets", y, ())
        return y.astype(np.float32), ()
    if y.ndim != 1:
        raise UserError(
            f"data.kind: targets of shape {y.shape} are no classes; classes have shape (rows,), or "
            "are one-hot rows"
        )
    names, labels = np.unique(y, return_inverse=True)
    if len(names) > 20 and len(names) == len(y):
        raise UserError(
            f"data.kind: all {len(y)} targets differ, so they are no classes; "
            + ("choose another target" if text else 'give kind="values"')
        )
    return labels.astype(np.int32), tuple(map(class_name, names))


def look_like_classes(y: np.ndarray) -> bool:
    """Whether targets are text, truth values, or few whole numbers that repeat."""
    if y.dtype.kind in "Ub":
        return True
    if y.ndim != 1 or (y != np.round(y)).any():
        return False
    different = len(np.unique(y))
    return different <= 20 and 2 * different <= len(y)


def class_name(value: np.generic) -> str:
    """The name of a class: text as it is, whole numbers without a point, others in full."""
    if isinstance(value, np.floating):
        return str(int(value)) if value == np.round(value) else repr(float(value))
    return str(value)


def refuse_large(name: str, part: str, array: np.ndarray, columns: Sequence[str]) -> None:
    """Raise for numbers that float32 turns into infinity."""
    if array.dtype.kind != "f":
        return
    bad = np.abs(array.reshape(len(array), -1)) > np.finfo(np.float32).max
    if bad.any():
        raise UserError(
            f"data: {part} of {name} hold {bad.sum()} numbers beyond 3.4e38 "
            f"({worst(bad, array.shape[1:], columns)}); divide them by a unit first"
        )


def warn_coarse(name: str, part: str, array: np.ndarray, columns: Sequence[str]) -> None:
    """Warn where numbers differ so little for their size that float32 keeps few digits of it."""
    if array.dtype.kind not in "fiu":
        return
    flat = array.reshape(len(array), -1).astype(np.float64)
    spread, size = flat.std(axis=0), np.abs(flat).max(axis=0)
    coarse = np.flatnonzero((flat.max(axis=0) > flat.min(axis=0)) & (spread < 1e-4 * size))
    if len(coarse):
        names = [column_name(int(c), array.shape[1:], columns) for c in coarse]
        warn(
            f"data: {part} of {name} vary by less than 1/10000 of their size in column "
            f"{first_five(names)}; computed in float32, little of that is left: subtract an offset"
        )


def warn_constant(name: str, x: np.ndarray, columns: Sequence[str]) -> None:
    """Warn of the columns of a table that are the same in every training row."""
    if x.ndim != 2:
        return  # images have borders
    constant = np.flatnonzero((x == x[:1]).all(axis=0))
    if len(constant):
        names = [column_name(int(c), x.shape[1:], columns) for c in constant]
        warn(
            f"data: {len(constant)} columns of {name} are the same in every training row: "
            f"{first_five(names)}; nothing can be learned from them"
        )
