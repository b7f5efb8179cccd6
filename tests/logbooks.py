"""Pages as runs leave them, written by hand."""

from nnref.experiment.experiment import Experiment

EXPERIMENT = {
    "about": "for the tests",
    "data": "xor",
    "model": {"name": "mlp", "hidden": [3]},
    "loss": "sigmoid_cross_entropy",
    "optimizer": {"name": "sgd", "learning_rate": 0.5},
    "batch_size": 4,
    "epochs": 4,
}


def write_page(logbook, name, history, seed=0, *, facts=(), notes=(), **changes):
    """A page with this history, measure -> values; complete where `facts` has a verdict."""
    experiment = Experiment(**EXPERIMENT | changes | {"seeds": [seed]})
    lines = [f"page 1 of {name}", f"identity: {experiment.identity}"]
    lines += ["started: 2026-11-23 10:00:00 UTC", "device: cpu cpu", f"together: {seed}"]
    lines += [f"epoch {' '.join(history)}"]
    for epoch, row in enumerate(zip(*history.values(), strict=True)):
        lines.append(f"{epoch} {' '.join(f'{v:.6g}'.replace('nan', '-') for v in row)}")
    lines += [f"{key}: {value}" for key, value in dict(facts).items()]
    lines += [f"note: {note}" for note in notes]
    path = logbook / name / f"{experiment.identity}-seed{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(experiment.to_json() + "".join(f"// {line}\n" for line in lines))
    return path
