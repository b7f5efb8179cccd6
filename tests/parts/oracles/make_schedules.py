"""Makes the rates that PyTorch's schedulers give, for nnref's schedules to be held against.

Run it where torch is installed (not a dependency of nnref):

    python tests/parts/oracles/make_schedules.py

It writes schedules_torch.json beside itself: for each run the schedule of nnref and its arguments,
and the factor of every update of 120 in 12 epochs of 10; for the plateau also the losses it heard.
"""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import torch

STEPS, STEPS_PER_EPOCH = 120, 10
# Falls, rests, falls by less than the threshold, rises.
LOSSES = [1.0, 0.8, 0.8, 0.79999, 0.9, 0.7, 0.7, 0.71, 0.6, 0.65, 0.65, 0.66]

s = torch.optim.lr_scheduler


def after_warmup(optimizer, updates, then):
    """A line of as many updates whose last has the whole rate, where `then` begins."""
    line = s.LinearLR(optimizer, 1 / updates, 1.0, updates - 1)
    return s.SequentialLR(optimizer, [line, then], [updates - 1])


RUNS = [
    ("linear", {}, lambda o: s.LinearLR(o, 1.0, 0.0, STEPS)),
    ("polynomial", {"power": 3.0}, lambda o: s.PolynomialLR(o, STEPS, 3.0)),
    ("step", {"factor": 0.5, "every_epochs": 3.0}, lambda o: s.StepLR(o, 30, 0.5)),
    (
        "multi_step",
        {"factor": 0.1, "at_epochs": [5.0, 9.0]},
        lambda o: s.MultiStepLR(o, [50, 90], 0.1),
    ),
    ("exponential", {"factor": 0.9, "every_steps": 1}, lambda o: s.ExponentialLR(o, 0.9)),
    ("cosine", {"final": 0.1}, lambda o: s.CosineAnnealingLR(o, STEPS, 0.1)),
    (
        "cosine_restarts",
        {"first_steps": 13, "final": 0.1},
        lambda o: s.CosineAnnealingWarmRestarts(o, 13, 1, 0.1),
    ),
    (
        "cosine_restarts",
        {"first_epochs": 0.8, "growth": 2},
        lambda o: s.CosineAnnealingWarmRestarts(o, 8, 2),
    ),
    # PyTorch counts its phases up to the last update, here they are counted to the end of the run.
    (
        "one_cycle",
        {"rise_share": 0.25},
        lambda o: s.OneCycleLR(o, 1.0, STEPS + 1, pct_start=31 / 121, cycle_momentum=False),
    ),
    (
        "one_cycle",
        {"rise_share": 0.25, "initial": 0.1, "final": 0.01, "shape": "linear"},
        lambda o: s.OneCycleLR(
            o,
            1.0,
            STEPS + 1,
            pct_start=31 / 121,
            cycle_momentum=False,
            anneal_strategy="linear",
            div_factor=10,
            final_div_factor=10,
        ),
    ),
    (
        "warmup",
        {"warmup_steps": 20, "then": "linear"},
        lambda o: after_warmup(o, 20, s.LinearLR(o, 1.0, 0.0, STEPS - 19)),
    ),
]


def factors(make):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    given = []
    for _ in range(STEPS):
        given.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return given


def plateau_factors(patience, threshold):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    # PyTorch reduces at one evaluation more than its patience.
    scheduler = s.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience - 1, threshold=threshold, eps=0.0
    )
    given = []
    for loss in LOSSES:
        given += [optimizer.param_groups[0]["lr"]] * STEPS_PER_EPOCH
        scheduler.step(loss)
    return given


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    runs = [{"schedule": n, "arguments": a, "factors": factors(make)} for n, a, make in RUNS]
    for patience, threshold in ((1, 1e-4), (2, 1e-4), (2, 0.2), (3, 0.0)):
        rule = {"patience_evaluations": patience, "threshold": threshold}
        runs.append(
            {
                "schedule": "reduce_on_plateau",
                "arguments": {"factor": 0.5} | rule,
                "losses": LOSSES,
                "factors": plateau_factors(patience, threshold),
            }
        )
    content = {
        "made_by": "tests/parts/oracles/make_schedules.py",
        "versions": {"python": platform.python_version(), "torch": version("torch")},
        "steps": STEPS,
        "steps_per_epoch": STEPS_PER_EPOCH,
    }
    rows = ",\n".join(json.dumps(run, separators=(",", ":")) for run in runs)
    path = Path(__file__).parent / "schedules_torch.json"
    path.write_text(json.dumps(content)[:-1] + ', "runs": [\n' + rows + "\n]}\n")
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KB")
