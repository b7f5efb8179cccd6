"""The doors of `nnref.diagnose`: whatever somebody has, and mistakes of all kinds."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import LinenNorm, X, Y, recipe_of, squared, task

import nnref
from nnref import UserError
from nnref.cli import main
from nnref.diagnosis.api import made_by
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.program import checks
from nnref.diagnosis.recipe import Recipe
from nnref.diagnosis.run import trials
from nnref.diagnosis.thresholds import bound


def test_a_task_of_plain_functions_that_learns_has_no_fault():
    found = nnref.diagnose(task(), optimizer=optax.adam(0.1), epochs=40)
    assert not found.faults
    assert found.exit_code == 0
    assert "It learns" in str(found)


def test_seconds_are_a_unit_of_effort():
    """Next to none of either allows one step, of which nothing can be said."""
    for little in ({"effort": 1e-9}, {"seconds": 3e-8}):
        found = nnref.diagnose(task(), optimizer=optax.adam(0.1), epochs=40, **little)
        assert found.measures["steps"] == 1
    found = nnref.diagnose(task(), optimizer=optax.adam(0.1), epochs=40, seconds=30)
    assert found.measures["steps"] > 1


def test_what_is_being_done_is_told_before_it_is_done():
    doing = []
    nnref.diagnose(task(), optimizer=optax.sgd(1e-6), epochs=40, progress=doing.append)
    assert doing[:3] == ["reading the program", "looking at the data", "training as told"]
    assert any("one thing changed: " in line and "rate x10" in line for line in doing[3:])


def test_a_users_exception_is_a_finding_with_its_own_line():
    def broken(params, x):
        return x @ params["w"].T  # the line that is named

    found = nnref.diagnose(task(apply=broken))
    assert [finding.cause for finding in found.faults] == ["broken_program"]
    line = broken.__code__.co_firstlineno + 1
    assert found[0].where == f"{__file__}:{line}"
    assert "params" in found[0].measured


def test_what_raises_inside_a_library_is_the_users_where_the_user_called_or_gave_it():
    def apply(params, x):
        return optax.incremental_update(params, x, 0.1)  # trees of two structures

    line = apply.__code__.co_firstlineno + 1
    found = nnref.diagnose(task(apply=apply))
    assert found[0].cause == "broken_program"
    assert found[0].where == f"{__file__}:{line}"
    given = optax.softmax_cross_entropy_with_integer_labels  # of targets that are no integers
    assert nnref.diagnose(task(loss=given))[0].cause == "broken_program"
    frozen = optax.masked(optax.sgd(0.1), {"no such layer": True})
    assert nnref.diagnose(task(), optimizer=frozen)[0].cause == "broken_program"


def test_what_raises_inside_nnref_is_no_fault_of_the_users_program(monkeypatch):
    """A check that raises is left out and told; a measure that all need ends the look."""
    monkeypatch.setitem(checks.CHECKS, "running statistics", lambda start: bound("num_consts"))
    found = nnref.diagnose(task(), optimizer=optax.adam(0.1), epochs=40)
    assert not found.faults
    assert found.learns
    assert found.exit_code == 3
    (line,) = found.mistakes
    assert "running statistics: KeyError: 'num_consts'" in line
    assert f"JAX {jax.__version__}" in line
    monkeypatch.setattr(trials.Trainer, "run", None)
    found = nnref.diagnose(task())
    assert (found.faults, found.learns, found.exit_code) == ((), None, 3)
    assert "by a mistake of its own" in found.headline
    assert "running statistics" in found.mistakes[0]
    assert "'NoneType' object is not callable" in found.mistakes[-1]


def test_the_command_says_so_where_nnref_itself_raises(tmp_path):
    program = (
        "from nnref.cli import main; from nnref.diagnosis.run import snapshot; "
        "snapshot.activations = None; "
        "raise SystemExit(main(['diagnose', 'experiments/xor_small.json']))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 3
    assert "please report it" in " ".join(ended.stdout.split())
    assert "broken_program" not in ended.stdout
    assert "Traceback" not in ended.stderr


def test_a_penalty_of_many_numbers_is_refused():
    with pytest.raises(UserError, match="it is one number"):
        nnref.diagnose(task(), penalty=lambda params: params["w"] ** 2)


def two_layers(key):
    a, b, c = jax.random.split(key, 3)
    shapes = {"a": (a, (3, 8)), "b": (b, (8, 8)), "c": (c, (8, 1))}
    return {name: 0.5 * jax.random.normal(*drawn) for name, drawn in shapes.items()}


def overwritten(params, x):
    hidden = jnp.tanh(x @ params["a"])
    again = jnp.tanh(hidden @ params["b"])
    again = hidden
    return again @ params["c"]


def test_a_layer_whose_result_is_overwritten_is_a_fault_with_its_line():
    given = nnref.Task(init=two_layers, apply=overwritten, loss=squared, train=(X, Y))
    found = nnref.diagnose(given, optimizer=optax.adam(0.02), epochs=60)
    assert found.faults[0].cause == "parameters_not_updated"
    line = overwritten.__code__.co_firstlineno + 2
    assert f"{Path(__file__).name}:{line}" in found.faults[0].where


def test_an_optimizer_that_raises_is_a_finding_too():
    def update(updates, state, params=None):
        raise RuntimeError("no updates today")

    optimizer = optax.GradientTransformation(lambda params: (), update)
    found = nnref.diagnose(task(), optimizer=optimizer)
    assert found[0].evidence == "RuntimeError: no updates today"
    assert found[0].where == f"{__file__}:{update.__code__.co_firstlineno + 1}"


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        ({"train": (X, np.full(64, "cat"))}, {}, "np.unique(y, return_inverse=True)[1]"),
        ({"train": (X[:1], Y[:1])}, {}, "1 training row"),
        ({}, {"batch_size": 0}, "batch_size is 0; it is a whole number"),
        ({}, {"epochs": 2.5}, "epochs is 2.5; it is a whole number"),
        ({}, {"kind": "regresion"}, "one of binary, multiclass, multilabel, regression"),
        ({}, {"optimizer": "adam"}, "'adam', no optax transformation"),
    ],
)
def test_what_no_training_can_be_made_of_is_refused(change, arguments, words):
    with pytest.raises(UserError) as told:
        nnref.diagnose(task(**change), **arguments)
    assert words in str(told.value)


def test_a_module_in_the_place_of_functions_is_refused():
    with pytest.raises(UserError, match="model="):
        nnref.diagnose(nnref.Task(LinenNorm(), loss=squared, train=(X, Y)))


@pytest.mark.parametrize(
    ("change", "arguments"),
    [
        ({}, {"penalty": lambda params: params["no such layer"]}),
        # With an `apply` of this file, whose line is asked for.
        ({"apply": lambda params, x: x @ params["w"], "valid": (X[:, :2], Y)}, {}),
    ],
)
def test_a_penalty_that_raises_and_validation_rows_that_do_not_fit_are_findings(change, arguments):
    found = nnref.diagnose(task(**change), **arguments)
    assert [finding.cause for finding in found.faults] == ["broken_program"]
    assert found[0].where.startswith(__file__)


def test_a_metric_that_raises_is_told_and_done_without():
    def metric(outputs, y):
        raise TypeError("no outputs like these")

    found = nnref.diagnose(task(), optimizer=optax.adam(0.1), epochs=40, metric=metric)
    assert not found.faults
    assert "your metric: TypeError: no outputs like these" in found.impossible


def test_data_that_are_not_finite_need_no_run():
    found = nnref.diagnose(task(train=(np.where(X > 2, np.nan, X), Y)))
    assert found.faults[0].cause == "nonfinite_data"
    assert "a run as told" not in found.checked


def test_targets_may_be_true_and_false():
    def logistic(outputs, y):
        return optax.sigmoid_binary_cross_entropy(outputs, y)

    found = nnref.diagnose(
        task(loss=logistic, train=(X, Y > 0)), optimizer=optax.adam(0.1), epochs=40
    )
    assert not found.faults
    assert not [line for line in found.impossible if "targets" in line]


def test_two_classes_in_two_columns_are_classes():
    y = np.concatenate([Y > 0, Y <= 0], 1).astype(np.float32)
    recipe = Recipe(
        lambda key: ({"w": jnp.zeros((3, 2))}, {}),
        lambda params, state, x, key, train: (x @ params["w"], state),
        lambda outputs, y: optax.softmax_cross_entropy(outputs, y).mean(),
        train=(X, y),
        valid=(X, y),
        optimizer=optax.adam(0.1),
        kind="binary",
    )
    found = nnref.diagnose(recipe)
    assert not found.faults
    assert found.measures["skill on validation rows"] > 0.9


# Networks of other forms


def test_a_network_written_for_its_batch_alone_is_diagnosed():
    def apply(params, x):
        return jnp.zeros((16, 1)) + x @ params["w"]

    found = nnref.diagnose(task(apply=apply), optimizer=optax.adam(0.1), batch_size=16, epochs=40)
    assert not found.faults
    assert found.measures["skill on training rows"] > 0.9


def test_a_language_model_whose_state_goes_on_is_diagnosed(tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat and the rat ran. " * 200)
    experiment = {
        "about": "",
        "data": {"name": "text", "path": str(tmp_path / "text.txt"), "window": 16, "streams": 8},
        "model": {
            "name": "recurrent",
            "cell": "lstm",
            "units": 32,
            "embedding": 8,
            "answer": "each",
            "streams": 8,
        },
        "loss": "softmax_cross_entropy",
        "optimizer": {"name": "adam", "learning_rate": 0.01},
        "shuffle": False,
        "batch_size": 8,
        "epochs": 20,
    }
    (tmp_path / "cat.json").write_text(json.dumps(experiment))
    found = nnref.diagnose(tmp_path / "cat.json")
    assert not found.faults
    assert found.measures["skill on training rows"] > 0.9
    assert 0.1 < max(found.measures["skill of simple models"].values()) < 0.9


def two_heads(params, x):
    return {"mean": x @ params["w"], "scale": x @ params["s"], "penalty": jnp.sum(params["w"])}


def likelihood(outputs, y):
    """Of a normal distribution."""
    scale = outputs["scale"]
    return jnp.mean(scale + 0.5 * (outputs["mean"] - y) ** 2 / jnp.exp(2 * scale))


def test_several_outputs_are_judged_by_what_their_loss_falls():
    def start(key):
        return {"w": jnp.zeros((3, 1)), "s": jnp.zeros((3, 1))}

    made = task(init=start, apply=two_heads, loss=likelihood)
    found = nnref.diagnose(made, optimizer=optax.adam(0.1), epochs=40)
    assert not found.faults
    assert found.measures["skill on training rows"] > 0.67
    assert sum("not one array" in told for told in found.impossible) == 1
    measured = Measurements(recipe_of(made))
    # The best constant answer is the mean and deviation of the targets.
    wanted = measured.skill.wanted
    assert measured.skill.constant_loss == pytest.approx(0.5 + np.log(wanted.std()), rel=1e-3)
    slow = nnref.diagnose(made, optimizer=optax.adam(1e-4), epochs=40)
    assert [fault.cause for fault in slow.faults] == ["learning_rate_too_low"]


def test_a_mean_and_its_deviation_are_no_answer_too_many():
    def halves(outputs, y):
        return likelihood({"mean": outputs[:, :1], "scale": outputs[:, 1:]}, y)

    made = task(
        init=lambda key: {"w": jnp.zeros((3, 2))}, apply=lambda p, x: x @ p["w"], loss=halves
    )
    found = nnref.diagnose(made, optimizer=optax.adam(0.1), epochs=40)
    assert not found.faults
    assert found.measures["skill on training rows"] > 0.67


def test_an_embedding_is_not_asked_for_as_many_units_as_there_are_classes():
    """Rows of a class together, others apart (Hadsell, Chopra, LeCun 2006)."""
    labels = (np.arange(64) % 4).astype(np.int32)
    x = np.eye(4, dtype=np.float32)[labels] + 0.1 * np.random.default_rng(1).normal(size=(64, 4))

    def contrastive(z, y):
        squares = jnp.sum((z[:, None] - z[None]) ** 2, -1)
        same = y[:, None] == y[None]
        apart = jnp.maximum(0, 1 - jnp.sqrt(squares + 1e-6)) ** 2
        return jnp.mean(jnp.where(same, squares, apart))

    made = task(
        init=lambda key: {"w": jax.random.normal(key, (4, 2))},
        apply=lambda p, x: x @ p["w"],
        loss=contrastive,
        train=(x.astype(np.float32), labels),
    )
    assert not nnref.diagnose(made, optimizer=optax.adam(0.03), epochs=40).faults
    alone = task(
        init=lambda key: {"w": jax.random.normal(key, (4, 2))},
        apply=lambda p, x: x @ p["w"],
        loss=optax.softmax_cross_entropy_with_integer_labels,
        train=(x.astype(np.float32), labels),
    )
    assert [f.cause for f in nnref.diagnose(alone).faults] == ["output_width_mismatch"]


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.lbfgs(),
        optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau(patience=5)),
        optax.contrib.schedule_free_adamw(0.1),
        optax.MultiSteps(optax.adam(0.1), 2),
        optax.lion(0.03),
    ],
)
def test_optimizers_that_look_at_the_loss_or_wait_are_taken_as_they_are(optimizer):
    found = nnref.diagnose(task(), optimizer=optimizer, epochs=40)
    assert not found.faults
    assert found.measures["skill on training rows"] > 0.9


# Nothing to diagnose, and the command


@pytest.mark.parametrize(
    "arguments",
    [{}, {"loss": squared}, {"task": 3}, {"loss": lambda a, b, c, d: 0, "params": {}, "batch": X}],
)
def test_a_diagnosis_of_nothing_is_refused(arguments):
    with pytest.raises(UserError):
        nnref.diagnose(**arguments)


def make_task():
    return task(), {"optimizer": optax.sgd(50.0), "epochs": 20}


def make_nothing():
    return 3


def test_the_command_names_a_fault_and_its_exit_code_says_so(capsys, tmp_path):
    page = tmp_path / "why.html"
    code = main(["diagnose", f"{__name__}:make_task", "--json", "--html", str(page)])
    told = json.loads(capsys.readouterr().out)
    assert code == 1
    assert told["found"][0]["cause"] == "learning_rate_too_high"
    assert "learning_rate_too_high" in page.read_text()


def make_trouble():
    raise RuntimeError("no task today")


@pytest.mark.parametrize("given", ["mine.py", "within/mine.py", "{folder}/mine.py"])
def test_a_task_is_named_by_its_file(given, tmp_path, monkeypatch):
    """In the folder where one is, below it, and elsewhere."""
    name = f"mine_{len(given)}"
    file = tmp_path / given.replace("{folder}/", "").replace("mine", name)
    file.parent.mkdir(exist_ok=True)
    file.write_text("from networks import task\ndef make_task(): return task(), {'epochs': 20}")
    monkeypatch.chdir("/" if "{" in given else tmp_path)
    made, arguments = made_by(f"{given.format(folder=tmp_path).replace('mine', name)}:make_task")
    assert arguments["epochs"] == 20
    assert isinstance(made, nnref.Task)


@pytest.mark.parametrize(
    "given",
    [
        "absent.py:make_task",
        f"{__name__}:make_nothing",
        f"{__name__}:absent",
        f"{__name__}:make_trouble",
        "no.module:x",
        ":make_task",
        ".:make_task",
    ],
)
def test_the_command_refuses_what_makes_no_task(given, capsys):
    assert main(["diagnose", given]) == 2
    assert given in capsys.readouterr().err


def test_a_loss_of_temporal_differences_does_not_tell_whether_it_learns():
    """Each state leads to the next one; what is wanted of a value is another value, stopped."""
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)

    def apply(params, x):
        now, then = (jnp.tanh(rows) @ params["w"] for rows in (x, 0.9 * x))
        return {"now": now, "then": jax.lax.stop_gradient(0.9 * then)}

    def temporal(outputs, reward):
        return jnp.mean((outputs["now"] - reward[:, None] - outputs["then"]) ** 2)

    found = nnref.diagnose(
        task(apply=apply, loss=temporal, train=(x, np.abs(x[:, 0]))),
        optimizer=optax.adam(0.01),
        epochs=5,
    )
    assert not found.faults
    assert found.learns is None


# A history of one's own beside the run


def test_a_history_beside_a_network_that_learns_points_at_the_loop():
    made = task()
    climbs = list(np.geomspace(1, 1e4, 40))
    found = nnref.diagnose(made, optimizer=optax.adam(0.1), epochs=40, history=climbs)
    (fault,) = found.faults
    assert fault.cause == "learning_rate_too_high"
    assert fault.where.startswith("your history")
    assert "look at your own loop" in fault.evidence
    assert found.measures["your history"]["last_loss"] == climbs[-1]
    falls = list(np.geomspace(1, 1e-4, 40))
    assert not nnref.diagnose(made, optimizer=optax.adam(0.1), epochs=40, history=falls).faults


def test_a_loop_whose_loss_stands_beside_functions_that_learn_loses_what_changes():
    learns = {"optimizer": optax.adam(0.1), "epochs": 40}
    noise = np.random.default_rng(0).normal(size=200)
    found = nnref.diagnose(task(), history=2.5 + 0.2 * noise, **learns)
    (fault,) = found.faults
    assert (fault.cause, fault.where) == ("parameters_not_updated", "your own loop")
    assert found.exit_code == 1
    short, falling = [2.5] * 5, np.linspace(2.5, 1.5, 200) + 0.05 * noise
    for history in (short, falling):
        assert not nnref.diagnose(task(), history=history, **learns).faults


def test_a_history_beside_a_fault_is_no_second_one():
    made = task(train=(X, np.full_like(Y, np.nan)))
    found = nnref.diagnose(made, history=list(np.geomspace(1, 1e4, 40)))
    assert [fault.cause for fault in found.faults] == ["nonfinite_data"]
    assert [note.cause for note in found.notes] == ["learning_rate_too_high"]
    with pytest.raises(UserError, match="empty"):
        nnref.diagnose(made, history=[])


@pytest.mark.parametrize("effort", [0, -1.0, float("nan"), float("inf")])
def test_an_effort_that_is_none_is_refused(effort):
    task = nnref.Task(
        init=lambda key: jnp.zeros((2, 1)),
        apply=lambda params, x: x @ params,
        loss=lambda outputs, y: jnp.mean((outputs - y) ** 2),
        train=(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)[:, :1]),
    )
    with pytest.raises(nnref.UserError, match="it is above 0"):
        nnref.diagnose(task, effort=effort)
