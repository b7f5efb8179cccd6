"""Makes activations.json: values and derivatives of activations by PyTorch, in float64.

Run it where torch is installed: `python tests/parts/oracles/activations.py`.
"""

import json
from pathlib import Path

import torch
from torch.nn import functional as F

# Kinks (0, +-1, +-3), both sides of them, saturation and far beyond.
POINTS = [0.0, 1e-9, 0.05, 0.5, 0.999, 1.0, 1.001, 1.7, 2.999, 3.0, 3.001, 7.0, 30.0, 1e4]
POINTS = [-z for z in POINTS[:0:-1]] + POINTS

# Numbers are exact in float32, in which torch keeps some of them.
CASES = [
    ("sigmoid", {}, torch.sigmoid),
    ("tanh", {}, torch.tanh),
    ("softsign", {}, F.softsign),
    ("relu", {}, F.relu),
    ("leaky_relu", {}, F.leaky_relu),
    ("leaky_relu", {"slope": 0.25}, lambda z: F.leaky_relu(z, 0.25)),
    ("prelu", {}, lambda z: F.prelu(z, torch.tensor([0.25], dtype=z.dtype))),
    ("elu", {}, F.elu),
    ("elu", {"alpha": 0.75}, lambda z: F.elu(z, 0.75)),
    ("selu", {}, F.selu),
    ("celu", {}, F.celu),
    ("celu", {"alpha": 0.75}, lambda z: F.celu(z, 0.75)),
    ("gelu", {}, F.gelu),
    ("gelu", {"form": "tanh"}, lambda z: F.gelu(z, approximate="tanh")),
    ("silu", {}, F.silu),
    ("mish", {}, F.mish),
    ("softplus", {}, lambda z: F.softplus(z, threshold=100)),  # linear beyond it, by default 20
    ("hard_tanh", {}, F.hardtanh),
    ("hard_sigmoid", {}, F.hardsigmoid),
]


def main() -> None:
    z = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)
    rows = []
    for name, arguments, function in CASES:
        values = function(z)
        (derivatives,) = torch.autograd.grad(values.sum(), z)
        row = {"name": name, "arguments": arguments, "values": values.tolist()}
        rows.append(row | {"derivatives": derivatives.tolist()})
    head = {"made_by": f"torch {torch.__version__}", "z": POINTS}
    lines = ",\n".join(json.dumps(row) for row in rows)
    text = json.dumps(head)[:-1] + ', "cases": [\n' + lines + "\n]}\n"
    Path(__file__).with_suffix(".json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
