"""The generator of random set-ups draws the same ones again, and plants one fault at a time."""

import dataclasses
import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from benchmarks.mutants import score, screen
from benchmarks.mutants.draw import draw_mutant, draw_setup, fault_of, generator
from benchmarks.mutants.faults import FAULTS
from benchmarks.mutants.networks import STYLES
from benchmarks.mutants.program import program_of
from benchmarks.mutants.setup import Setup

# Which parts of a set-up the place of a fault stands for.
PARTS = {
    "inputs": {"data.train", "data.valid", "data.fresh", "look"},
    "targets": {"data.train", "data.valid", "data.fresh", "epochs"},
    "split": {"data.train", "data.valid"},
    "training rows": {"data.train", "epochs", "batch_size"},
    "metric": {"metric"},
    "loss": {"loss"},
    "last layer": {"wiring.final", "wiring.outputs", "loss", "metric"},
    "hidden": {"wiring.activation", "wiring.between", "wiring.width", "wiring.code"},
    "steps": {f"wiring.{name}" for name in ("pool", "seen", "time_axis", "positions", "causal")},
    "embedding": {"look", "wiring.vocabulary"},
    "start": {"start"},
    "dropout": {f"wiring.{name}" for name in ("dropout", "dropout_always", "dropout_key")},
    "normalization": {"carry", "mode", "wiring.momentum"},
    "rate": {"steps.rate", "steps.schedule"},
    "schedule": {"steps.schedule"},
    "clip": {"steps.clip", "steps.rate"},
    "decay": {"steps.decay", "steps.after"},
    "updates": {"steps.after"},
    "penalty": {"penalty"},
    "epochs": {"epochs", "batch_size"},
    "batch size": {"epochs", "batch_size"},
}
QUICK = next(fault for fault in FAULTS if (fault.cause, fault.way) == ("gradient_ascent", "rate"))


def parts(setup: Setup):
    """Every part by its name, those of data, wiring and steps one by one."""
    for field in dataclasses.fields(setup):
        value = getattr(setup, field.name)
        if field.name in ("data", "wiring", "steps"):
            for inner in dataclasses.fields(value):
                yield f"{field.name}.{inner.name}", getattr(value, inner.name)
        else:
            yield field.name, value


def same(one, other):
    if isinstance(one, tuple):
        return all(map(np.array_equal, one, other))
    return one is other or one == other


def result(program):
    """Shapes of loss and metric; the optimizer has to take the parameters as well."""
    x, y = program.train
    batch = slice(0, min(program.batch_size, len(x)))

    def once(key):
        params, state = program.init(key)
        outputs, state = program.apply(params, state, x[batch], key, True)
        in_use, _ = program.apply(params, state, program.valid[0], None, False)
        loss = program.loss(outputs, y[batch]) + program.penalty(params)
        updates, _ = program.optimizer.update(params, program.optimizer.init(params), params)
        return loss, program.metric(in_use, program.valid[1]), updates

    loss, metric, _ = jax.eval_shape(once, jax.random.key(0))
    return loss.shape, metric.shape


def quick(fault, family=None):
    """A set-up in plain functions, which are quick to build; of modules where all are such."""
    for attempt in range(60):
        mutant = draw_mutant(3, attempt, fault)
        if mutant.healthy.style == "plain" and family in (None, mutant.healthy.family):
            break
    return mutant


def test_a_seed_draws_the_same_set_up_again():
    for seed in (0, 5, 41):
        one, other = draw_mutant(seed, 1), draw_mutant(seed, 1)
        assert (one.fault, one.faulty.source) == (other.fault, other.faulty.source)
        for (name, value), (_, again) in zip(parts(one.faulty), parts(other.faulty), strict=True):
            if not callable(value):
                assert same(value, again), name
    assert draw_mutant(5, 0).healthy.data.train[0].tolist() != (
        draw_mutant(5, 1).healthy.data.train[0].tolist()
    )
    programs = [quick(QUICK, "mlp").program() for _ in range(2)]
    first, second = (jax.tree.leaves(each.init(jax.random.key(0))[0]) for each in programs)
    assert all(map(np.array_equal, first, second))


def test_an_even_seed_and_the_odd_one_behind_it_have_one_cause_and_all_causes_come_in_turn():
    causes = {fault.cause for fault in FAULTS}
    seeds = range(2 * len(causes))
    assert all(fault_of(seed).cause == fault_of(seed + 1).cause for seed in seeds[::2])
    assert {fault_of(seed).cause for seed in seeds[::2]} == causes


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # faults of arithmetic are such
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.cause}-{fault.way}")
def test_every_fault_can_be_planted_builds_and_is_all_that_twins_differ_by(fault):
    mutant = quick(fault)
    assert result(mutant.program()) == ((), ())
    pairs = zip(parts(mutant.healthy), parts(mutant.faulty), strict=True)
    differ = {name for (name, value), (_, other) in pairs if not same(value, other)}
    assert differ
    assert differ <= PARTS[fault.where]


NETWORKS = [(style, family) for style in STYLES for family in STYLES[style]]


@pytest.mark.parametrize(("style", "family"), NETWORKS)
def test_every_network_builds_in_every_style(style, family):
    for number in range(400):
        setup = draw_setup(generator(number))
        if setup.family == family:
            break
    assert result(program_of(replace(setup, style=style))) == ((), ())


def test_names_of_faults_are_unique():
    names = [(fault.cause, fault.way) for fault in FAULTS]
    assert len(set(names)) == len(names)


def test_the_screening_trains_both_twins_and_keeps_a_fault_that_bites():
    row = screen.screened(quick(QUICK, "mlp"))
    assert row["learns"]
    assert row["bites"]
    assert max(row["faulty"]["judged"]) < 0.1 < 0.7 < min(row["healthy"]["judged"])


@pytest.mark.parametrize(
    ("healthy", "faulty", "learns", "bites"),
    [
        ((0.9, 0.9), (0.2, 0.5), True, True),
        ((0.9, 0.9), (0.2, 0.8), True, False),  # from one seed it learns
        ((0.9, 0.6), (0.2, 0.2), False, False),  # from one seed the healthy one does not
    ],
)
def test_both_seeds_decide(healthy, faulty, learns, bites, monkeypatch):
    mutant = quick(QUICK, "mlp")

    def ends(setup, judged):
        reached = list(healthy if setup is mutant.healthy else faulty)
        return {"train": reached, "valid": reached, "judged": reached}

    monkeypatch.setattr(screen, "ends", ends)
    monkeypatch.setattr(screen, "simple_skill", lambda setup: 0.0)
    row = screen.screened(mutant)
    assert (row["learns"], row["bites"]) == (learns, bites)


def test_numbers_of_seeds():
    assert screen.numbers("1-7:2") == [1, 3, 5, 7]
    assert screen.numbers("4") == [4]


def answer(seed, twin, *causes, fault=QUICK, **more):
    found = [{"cause": cause, "severity": "fault", "where": ""} for cause in causes]
    found.append({"cause": "overfitting", "severity": "note", "where": ""})
    row = {"seed": seed, "attempt": 0, "twin": twin, "cause": fault.cause, "way": fault.way}
    return row | {"found": found, "seconds": 2.0} | more


def test_figures_of_answers():
    narrow = next(fault for fault in FAULTS if fault.way == "narrow")
    rows = [
        answer(1, False, "gradient_ascent", "loss_mismatch"),
        answer(2, False, "loss_mismatch"),
        answer(3, False),
        answer(5, False, "gradient_ascent", fault=narrow),
        answer(7, False, "hidden_activation_missing", fault=narrow),
        {**answer(9, False, fault=narrow), "error": "timeout"},
        answer(1, True),
        answer(2, True, "gradient_ascent"),
        {**answer(3, True), "error": "timeout"},
    ]
    found = score.figures(rows)
    hits = {name: (found[name]["hits"], found[name]["total"]) for name in list(found)[:6]}
    assert hits == {
        "detected": (4, 6),
        "cause exact": (1, 6),
        "cause accepted": (2, 6),
        "precision of alarms": (4, 6),
        "false alarms": (2, 3),
        "exceptions and time-outs": (2, 9),
    }
    ascent = found["causes"]["gradient_ascent"]
    assert (ascent["n"], ascent["detected"], ascent["exact"]) == (3, 2, 1)
    assert (ascent["precision"]["hits"], ascent["precision"]["total"]) == (1, 3)
    assert ascent["confused"] == {"loss_mismatch": 1, "nothing": 1}


def test_the_interval_is_that_of_wilson():
    assert score.wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert score.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998


def test_a_stopped_scoring_goes_on_where_it_was(tmp_path, monkeypatch):
    kept, answers = tmp_path / "kept.jsonl", tmp_path / "answers.jsonl"
    described = dict.fromkeys(score.DESCRIBED, "x")
    lines = [described | {"seed": seed, "attempt": 1, "kept": seed != 2} for seed in range(4)]
    kept.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    asked = []

    def judged(tasks, limit):
        for task in tasks[:3]:  # and then it is stopped
            asked.append(task)
            yield task, {"found": [], "seconds": 1.0}

    monkeypatch.setattr(score, "judged", judged)
    for _ in range(3):
        score.collect(kept, [0, 1, 2, 3], answers, 1, 1.0, True)
    wanted = [(seed, 1, twin) for seed in (0, 1, 3) for twin in (False, True)]
    assert sorted(asked) == wanted
    assert sorted((r["seed"], r["attempt"], r["twin"]) for r in score.lines(answers)) == wanted
