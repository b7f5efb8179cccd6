"""Signals drawn from measurements."""

from types import SimpleNamespace

from invented_runs import DEAD, case, look


def test_a_layer_that_dies_tells_between_which_steps():
    """Of the looks at steps 0, 100, 300 and 400, the first two see it alive."""
    made = case(end=look(levels=DEAD))
    alive, dead = look(), look(levels=DEAD)
    made.measurements.run.snapshots = [
        (0, "alive", {}),
        (100, "alive", {}),
        (300, "dead", {}),
        (400, "dead", {}),
    ]
    made.measurements.run.snapshots = [
        (s, {"state": p}, {}) for s, p, _ in made.measurements.run.snapshots
    ]
    made.measurements.look = lambda params, state: alive if params["state"] == "alive" else dead
    assert made.death_of(1) == (100, 300)


def test_a_gain_that_is_lost_on_validation_rows_is_no_learning():
    """Asked where no simple model says what there is to learn."""

    def made(there, reference=0.0):
        signals = case(reached=0.1, valid=0.1, reference=reference, longer=0.6)
        trial = signals.trials["longer"]._replace(valid=there)
        signals.interventions.trials["longer"] = trial
        return signals

    assert made(-0.5).best_trial == 0
    assert made(-0.5).cured("longer") is None
    assert made(0.5).best_trial == 0.6
    assert made(0.05).best_trial == 0, "no better than a constant"


def test_what_was_learned_by_heart_is_not_cured_by_more_of_it():
    def made(there, reached, carries=True):
        signals = case(reached=reached, valid=0.0, reference=0.8, longer=0.95)
        trial = signals.trials["longer"]._replace(valid=there)
        signals.interventions.trials["longer"] = trial
        signals.measurements.splits = SimpleNamespace(numbers=SimpleNamespace(carries=carries))
        return signals

    assert made(0.1, 0.7).best_trial == 0
    assert made(0.7, 0.7).best_trial == 0.95
    assert made(0.1, 0.3).best_trial == 0, "its own rows were not learned, and now by heart"
    assert made(0.4, 0.3).best_trial == 0.95
    assert made(0.1, 0.3, carries=False).best_trial == 0.95, "validation rows are of another kind"


def test_a_small_fall_of_a_loss_without_a_floor_is_no_failure():
    assert case(reached=0.05, valid=0.05, reference=0.0, fits=True).failed
    assert not case(reached=0.05, valid=0.05, reference=0.0, fits=False).failed
