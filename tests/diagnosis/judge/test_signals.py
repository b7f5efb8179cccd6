"""Signals drawn from measurements."""

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
