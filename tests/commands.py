"""The command line, called in the test's own process."""

import json

from nnref.cli import main

SMALL = {
    "about": "A line about it. And more.",
    "data": {"name": "xor"},
    "model": {"name": "mlp", "hidden": [4]},
    "loss": "sigmoid_cross_entropy",
    "optimizer": {"name": "sgd", "learning_rate": 0.5, "momentum": 0.9},
    "batch_size": 4,
    "epochs": 60,
    "seeds": [0, 1],
}


def write(folder, name, **changes):
    (folder / "experiments" / f"{name}.json").write_text(json.dumps(SMALL | changes))


def call(capsys, *arguments):
    """Exit code, stdout and stderr of a call."""
    try:
        code = main(arguments)
    except SystemExit as left:
        code = left.code
    said = capsys.readouterr()
    return code, said.out, said.err
