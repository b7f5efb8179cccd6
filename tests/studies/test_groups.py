"""Groups: which variants share a program, and what it costs."""

import pytest
from small import XOR_SWEEP, changed

from nnref.studies import groups
from nnref.studies.sweep_record import plan_sweep

CONTENT = XOR_SWEEP  # of `file`: nine variants in two groups


def test_variants_of_one_structure_are_a_group(file):
    plan = plan_sweep(file)
    assert [len(group.jobs) for group in plan.groups] == [3 * 2, 6 * 2]
    assert sorted(job for group in plan.groups for job in group.jobs) == plan.jobs
    assert plan.groups[0].varied == {"optimizer.learning_rate"}
    assert plan.groups[1].varied == {"optimizer.learning_rate", "optimizer.beta1"}


@pytest.mark.parametrize(
    ("axis", "values", "count"),
    [
        ("model.hidden", [[2], [3]], 2),
        ("batch_size", [2, 4], 2),
        ("epochs", [5, 6], 2),
        ("optimizer.learning_rate", [0.1, 0.2], 1),
        ("data.seed", [1, 2], 2),
        ("regularization.l2", [0.1, 0.2, None], 2),
        ("model.kernel_initializer", ["he_normal", "he_uniform"], 2),
    ],
)
def test_what_is_structure_parts_groups(file, axis, values, count):
    if axis == "data.seed":
        data = {"name": "spirals", "points": 10}
        plan = plan_sweep(
            changed(file, data=data, loss="softmax_cross_entropy", sweep={"axes": {axis: values}})
        )
    else:
        plan = plan_sweep(changed(file, sweep={"axes": {axis: values}}))
    assert len(plan.groups) == count


def test_a_group_too_large_for_memory_is_split(file, monkeypatch):
    group = plan_sweep(file).groups[1]
    assert group.together == 12
    monkeypatch.setattr(groups, "memory_limit", lambda: 3.5 * groups.workers() * group.cost.bytes)
    assert group.together == 12, "what was planned stays"
    assert plan_sweep(file).groups[1].together == 3
    monkeypatch.setattr(groups, "memory_limit", lambda: 1.0)
    assert plan_sweep(file).groups[1].together == 1


def test_the_estimate_grows_with_what_is_computed(file):
    def cost(**keys):
        return plan_sweep(changed(file, **keys)).groups[0].cost

    small, wide = cost(), cost(model={"name": "mlp", "hidden": [300, 300]})
    assert wide.step > 100 * small.step
    assert wide.bytes > 100 * small.bytes
    assert cost(epochs=1000).seconds == pytest.approx(10 * small.seconds)
