"""A diagnosis that was never made, for its page."""

import numpy as np

from nnref.diagnosis.findings import Finding
from nnref.diagnosis.proof import Proof, curve

FALLS = np.geomspace(1, 0.01, 30)
MEASURES = {
    "skill on training rows": 0.1,
    "skill on validation rows": None,
    "skill of simple models": {"linear": 0.9},
    "skill on one batch by its rows": {},
    "steps": 120,
    "first loss": 0.8,
    "last loss": 0.4,
    "trials": {"rate x0.1": 0.9, "longer": -0.2},
    "losses": {"seed": 4, "changed": False, "epochs": (1, 2), "losses": (2.0, 1.0)},
    "layers": {
        "names": ["dense.kernel", "out.kernel"],
        "steps": [10, 20],
        "gradient": [[1.0, 2.0], [3.0, float("nan")]],
        "update": [[1e-3, 1e-2], [0.0, 1e-2]],
    },
}
CURVES = tuple(
    curve(seed, changed, FALLS * (1 if changed else 3)) for seed in (4, 5) for changed in (0, 1)
)
PROOF = Proof(
    "with a tenth of the learning rate, it learns", "rate x0.1", (0.1, 0.2), (0.9, 0.8), CURVES
)
FAULT = Finding("learning_rate_too_high", "fault", "optimizer", "<b> steps", proof=PROOF)
