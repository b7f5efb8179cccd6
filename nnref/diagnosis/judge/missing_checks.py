"""What is missing in the rows: NaN that reaches the parameters, or that the loss leaves out."""

from collections.abc import Iterator

import jax
import numpy as np

from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.program.birth import masked_by_product


def finite(values: np.ndarray) -> bool:
    """Whether no number is NaN or infinite."""
    return values.dtype.kind not in "fc" or bool(np.isfinite(values).all())


def nonfinite(measured: Measurements, x: np.ndarray, y: np.ndarray) -> Iterator[Finding]:
    """NaN or infinity; no fault where loss and gradient of the rows that hold it are finite."""
    parts = {name: part for name, part in (("inputs", x), ("targets", y)) if not finite(part)}
    if not parts:
        return
    wrong = {name: ~np.isfinite(part.reshape(len(part), -1)) for name, part in parts.items()}
    first = np.argsort(~np.any([bad.any(1) for bad in wrong.values()], axis=0), kind="stable")
    function, arguments = measured.slopes_at(first[: measured.recipe.batch_size])
    results = jax.tree.leaves(jax.jit(function)(*arguments))
    left_out = all(finite(np.asarray(leaf)) for leaf in results)
    birth = None if left_out else masked_by_product(function, *arguments)
    for name, bad in wrong.items():
        row, column = np.argwhere(bad)[0]
        count = f"{int(bad.sum())} numbers of the {name} are NaN or infinite"
        place, share = f"{name}, row {row}, column {column}", f"{bad.any(1).mean():.1%} of the rows"
        if left_out:
            told = "the loss of these rows and its gradient are finite: they are left out"
            yield note("nonfinite_data", place, f"{count}; {told}", share)
        elif birth is not None and birth.where:
            told = f"{count}, and the loss meets {birth.name}"
            yield fault("nonfinite_data", birth.where, told, share, remedy=birth.remedy)
        else:
            yield fault("nonfinite_data", place, count, share)
