"""A user's own data, from a `.csv` or `.npz` file."""

import csv
from pathlib import Path
from typing import Literal

import numpy as np

from nnref.bounds import Index, Probability
from nnref.data.prepare import Dataset, refuse_nonfinite, split_rows, standardize
from nnref.errors import UserError, nearest


def read_csv(path: Path, target: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Columns of a table with a header line: inputs (rows, columns), targets (rows,), names."""
    with path.open(newline="", encoding="utf-8-sig") as lines:
        rows = [row for row in csv.reader(lines) if row]
    if len(rows) < 2:
        raise UserError(f"data.path: {path} has no rows below its header line")
    header, rows = [name.strip() for name in rows[0]], rows[1:]
    if target not in header:
        raise UserError(
            f'data.target: {path} has no column "{target}"; its columns are '
            f"{', '.join(header)}{nearest(target, header)}"
        )
    ragged = [number for number, row in enumerate(rows, 2) if len(row) != len(header)]
    if ragged:
        raise UserError(
            f"data.path: {len(ragged)} rows of {path} have another number of cells than the "
            f"{len(header)} of the header, the first in line {ragged[0]}"
        )
    table = np.array(rows)
    place = header.index(target)
    names = tuple(name for name in header if name != target)
    columns = [numbers(path, name, table[:, header.index(name)]) for name in names]
    if not columns:
        raise UserError(f"data.path: {path} has no column beside the target")
    return np.stack(columns, axis=1), table[:, place], names


def numbers(path: Path, name: str, cells: np.ndarray) -> np.ndarray:
    """The cells of an input column as float32; empty ones become NaN and are refused later."""
    try:
        return np.where(np.char.strip(cells) == "", "nan", cells).astype(np.float32)
    except ValueError:
        bad = [cell for cell in cells if not is_number(cell)]
        raise UserError(
            f'data.path: column "{name}" of {path} holds {len(bad)} cells that are no numbers, '
            f'like "{bad[0]}"; encode them as numbers first'
        ) from None


def is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True


def read_npz(path: Path, target: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Arrays of an archive: inputs under "x" (or the only other name), targets under `target`."""
    with np.load(path, allow_pickle=False) as archive:
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
        return archive[inputs], archive[target], ()


READERS = {".csv": read_csv, ".npz": read_npz}


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

    Targets of text or integers are classes, others are real values. A relative path is looked up
    from the folder in which the command runs.

    Args:
        path: the file.
        target: the column or array to predict; a `.npz` holds its inputs in "x".
        kind: "classes", "values", or "auto": classes where targets are text or few integers.
        valid: share of the rows for validation.
        test: share of the rows for the test.
        standardized: shift and scale each column by the mean and deviation of the training rows.
        seed: of the split.
    """
    where = Path(path).expanduser()
    reader = READERS.get(where.suffix.lower())
    if reader is None:
        raise UserError(f"data.path: {path} ends in none of {', '.join(READERS)}")
    if not where.is_file():
        raise UserError(f"data.path: there is no file {where.resolve()}")
    x, y, columns = reader(where, target)
    if x.dtype.kind not in "fiub":
        raise UserError(f"data.path: the inputs of {path} have dtype {x.dtype}, not numbers")
    if len(x) != len(y):
        raise UserError(f"data.path: {path} has {len(x)} rows of inputs and {len(y)} targets")
    # Before any statistics: one NaN would spread over its column and hide where it was.
    refuse_nonfinite(where.name, "inputs", x, columns)
    y, classes = targets(y, kind)
    refuse_nonfinite(where.name, "targets", y, ())
    parts = split_rows(
        x.astype(np.float32), y, valid=valid, test=test, seed=seed, stratify=bool(classes)
    )
    if standardized:
        parts = standardize(*parts)
    return Dataset(*parts, classes=classes, columns=columns)


def targets(y: np.ndarray, kind: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Targets as integer classes with their names, or as float32 values without."""
    text = y.dtype.kind in "US"
    if text and all(is_number(cell) for cell in y):
        if (np.char.strip(y) == "").any():
            raise UserError(f"data.target: {(np.char.strip(y) == '').sum()} targets are missing")
        y, text = y.astype(np.float64), False
    if not text and y.dtype.kind not in "fiub":
        raise UserError(f"data.target: targets have dtype {y.dtype}; numbers or text are allowed")
    if kind == "auto":
        whole = not text and np.array_equal(y, np.round(y)) and y.ndim == 1
        kind = "classes" if text or (whole and len(np.unique(y)) <= 20) else "values"
    if kind == "values":
        if text:
            raise UserError('data.kind: targets are text; "values" needs numbers')
        return y.astype(np.float32), ()
    names, labels = np.unique(y, return_inverse=True)
    shown = [f"{name:g}" if isinstance(name, np.floating) else str(name) for name in names]
    return labels.astype(np.int32), tuple(shown)
