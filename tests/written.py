"""Tables and archives that tests write, and what is said of them."""

import numpy as np
import pytest

from nnref.data import DATA, DataWarning
from nnref.errors import UserError

WHOLE = {"valid": 0.0, "test": 0.0, "standardized": False}


def refused(call, *arguments, **keys):
    """What a call is refused for."""
    with pytest.raises(UserError) as error:
        call(*arguments, **keys)
    return str(error.value)


def told_of(**arguments):
    """The warnings that reading a file gives."""
    with pytest.warns(DataWarning) as told:
        DATA["file"](**arguments)
    return [str(each.message) for each in told]


def csv_file(folder, text, encoding="utf-8", name="table.csv"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return str(path)


def npz_file(folder, **arrays):
    path = folder / "arrays.npz"
    np.savez(path, **arrays)
    return str(path)


def in_order(dataset):
    """Rows back in the order of their first column."""
    order = np.argsort(dataset.train.x[:, 0])
    return dataset.train.x[order], dataset.train.y[order]
