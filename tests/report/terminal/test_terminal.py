"""What a run says to a person: table, curve, pictures, the table of parts."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from rich.console import Console

from nnref.bounds import NonNegative
from nnref.experiment.experiment import FAMILIES, Experiment
from nnref.experiment.schema import member_model
from nnref.logbook.verdicts import Record, Verdict
from nnref.report.pictures import draw_losses, draw_schedule
from nnref.report.terminal.parts import parts_as_markdown
from nnref.report.terminal.terminal import TerminalListener, curve, show, spark, tables
from nnref.studies.run import Run
from nnref.training.loop import Chunk

EXPERIMENT = {
    "data": {"name": "spirals", "points": 20},
    "model": {"name": "mlp", "hidden": [4]},
    "loss": "softmax_cross_entropy",
    "optimizer": {"name": "sgd", "learning_rate": 0.5},
    "batch_size": 12,
    "epochs": 10,
    "claim": {"metric": "valid_loss", "at_most": 0.3, "in": 1, "of": 2},
}


def run_of(*curves, ending="", kept=None):
    """A finished run whose validation loss is a tenth above its training loss."""
    records = []
    for seed, values in enumerate(curves):
        train = np.array(values, np.float32)
        history = {"train_loss": train, "valid_loss": 1.1 * train, "train_accuracy": 1 - train}
        history["valid_accuracy"] = history["train_accuracy"] / 2
        records.append(Record(seed, history, ending, kept=kept))
    return Run("some", Experiment(**EXPERIMENT), tuple(records), Verdict(True, (), "well"))


def printed(thing, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(thing)
    console.file.close()
    return console.export_text()


def listening(seeds, width=80):
    console = Console(width=width, force_terminal=True, file=open("/dev/null", "w"))  # noqa: SIM115
    listener = TerminalListener(console)
    listener.begins(Experiment(**EXPERIMENT), seeds, 2, "")
    return listener


def chunk(first, active, **history):
    """Epochs of two seeds."""
    arrays = {name: np.array(values, np.float32) for name, values in history.items()}
    return Chunk(first, arrays, np.array(active), np.zeros_like(active, int), None)


def lines_of(listener):
    """What it shows beneath the bar."""
    listener.ends()
    listener.console.file.close()
    return [text.plain for text in listener.view().renderables[1:]]


def test_every_seed_has_a_line_while_it_trains():
    listener = listening([3, 14])
    nan = float("nan")
    both, one = [[True, True]], [[True, True], [False, True]]
    listener.hears(chunk(0, both, train_loss=[[1, 2]], valid_accuracy=[[0.5, 0.6]]))
    told = {"train_loss": [[0.1, 0.2], [9, 0.02]], "valid_accuracy": [[nan, 0.8], [9, nan]]}
    listener.hears(chunk(1, one, train_accuracy=[[0.3, 0.3]] * 2, **told))
    assert listener.progress.tasks[0].completed == 2
    first, second = lines_of(listener)
    # The first seed has ended, and had no second validation.
    assert first == "seed 3   train_loss 0.1  valid_accuracy 0.5  █▁"
    assert second == "seed 14  train_loss 0.02  valid_accuracy 0.8  █▅▁"


def test_many_seeds_have_a_line_together():
    listener = listening(range(21))
    losses = [np.arange(21) + 1]
    listener.hears(chunk(0, [[True] * 21], train_loss=losses, valid_loss=losses))
    assert lines_of(listener) == ["median of 21 seeds  train_loss 11  valid_loss 11  ▁"]


def test_lines_fit_into_the_terminal():
    listener = listening([3, 14], width=40)
    for epoch in range(40):
        listener.hears(chunk(epoch, [[True, True]], train_loss=[[0.5**epoch] * 2]))
    for line in lines_of(listener):
        assert len(line) <= 40
        assert line.endswith("▁")


def test_a_spark_line_is_logarithmic_and_newest_at_the_right():
    assert spark(np.array([1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]), 20) == "▁▂▃▄▅▆▇█"
    assert spark(np.geomspace(1, 1e-6, 1000), 4) == "█▆▃▁"
    assert spark(np.array([np.nan, 1.0, np.inf, 0.0]), 4) == "▁"
    assert spark(np.array([np.nan]), 4) == ""
    assert spark(np.ones(3), 0) == ""


def test_the_table_has_a_row_for_each_seed_and_the_median():
    told = printed(tables(run_of([0.9, 0.5, 0.2], [0.8, 0.4, 0.6]))[0])
    rows = [line.split() for line in told.splitlines()]
    #                       train best  valid  best  accuracies  to target  epoch
    assert ["0", "0.2", "0.2", "0.22", "0.22", "0.8", "0.4", "2", "2"] in rows
    assert ["1", "0.6", "0.4", "0.66", "0.44", "0.4", "0.2", "never", "2"] in rows
    assert rows[-1][0] == "median"


def test_a_measure_of_the_test_split_is_reached_at_no_epoch(monkeypatch):
    claim = EXPERIMENT["claim"] | {"metric": "test_accuracy", "at_most": 2.0}
    monkeypatch.setitem(EXPERIMENT, "claim", claim)
    told = printed(tables(run_of([0.9, 0.5], [0.8, 0.4]))[0])
    assert "target" not in told
    assert "never" not in told


def test_the_table_tells_quantiles_where_there_are_many_seeds():
    curves = [[1.0, value] for value in np.linspace(0.1, 0.9, 101)]
    told = printed(tables(run_of(*curves))[0])
    rows = {line.split()[0]: line.split() for line in told.splitlines() if line.split()}
    assert rows["lowest"][1] == "0.1"
    assert rows["median"][1] == "0.5"
    assert rows["highest"][1] == "0.9"
    assert len(told.splitlines()) < 10


def test_the_table_shows_the_network_that_is_kept():
    told = printed(tables(run_of([0.9, 0.1, 0.7], kept=1, ending="stopped at epoch 2: x"))[0])
    assert told.splitlines()[-1].split() == [
        "0", "0.1", "0.1", "0.11", "0.11", "0.9", "0.45", "1", "1", "stopped",
    ]  # fmt: skip


def test_everything_fits_into_80_columns():
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(run_of(*[[0.9, 0.012345, 0.00012345]] * 3), console)
    console.file.close()
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


def test_the_curve_falls_from_its_first_value_to_its_last():
    lines = curve(run_of(np.geomspace(1, 0.001, 200))).splitlines()
    assert lines[0].split()[0] == "1.1"
    assert lines[7].split()[0] == "0.001"
    columns = [len(line[10:]) - len(line[10:].lstrip()) for line in lines[:8]]
    assert columns == sorted(columns), "a straight line on a logarithmic scale"
    assert lines[-2].split() == ["0", "epoch", "199"]


@pytest.mark.parametrize("values", [[1.0, np.nan], [0.0, 0.0], [2.0, np.inf]])
def test_the_curve_leaves_out_what_it_cannot_draw(values):
    assert "nan" not in curve(run_of(values))


def test_pictures_are_drawn_for_one_seed_and_for_many(tmp_path):
    one, many = run_of([0.9, 0.5, 0.2]), run_of(*[[0.9, 0.5, np.nan]] * 30)
    for number, run in enumerate((one, many)):
        png = draw_losses(run, tmp_path / f"{number}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        svg = draw_losses(run, tmp_path / f"{number}.svg").read_text()
        assert svg.count("<path") > 10


def test_a_picture_of_the_schedule(tmp_path):
    experiment = Experiment(**EXPERIMENT | {"schedule": "cosine"})
    assert draw_schedule(experiment, "some", tmp_path / "s.png").stat().st_size > 5000


def test_the_table_of_parts_is_up_to_date():
    assert Path("docs/parts.md").read_text() == parts_as_markdown(), (
        "write it anew: nnref parts > docs/parts.md"
    )


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_member_and_argument_has_a_line_of_its_own(kind):
    """A member without a docstring, or an argument without a line in it, shows here."""
    for name, function in FAMILIES[kind].items():
        model = member_model(kind, name, function)
        for key, field in model.model_fields.items():
            assert field.description, f"{kind} {name}: {key} is not described"


def test_a_new_activation_is_one_function_and_one_row():
    """As the README has it: keys, ranges and descriptions follow from the signature."""

    def softshrink(z, *, threshold: NonNegative = 0.5):
        """Soft shrinkage.

        Args:
            threshold: below it the unit is silent.
        """
        return z * (abs(z) > threshold)

    model = member_model("activation", "softshrink", softshrink)
    assert model.model_validate({"name": "softshrink"}).threshold == 0.5
    assert model.model_fields["threshold"].description == "below it the unit is silent."
    for wrong in ({"threshold": -1.0}, {"threshhold": 1.0}):
        with pytest.raises(ValidationError):
            model.model_validate({"name": "softshrink"} | wrong)
