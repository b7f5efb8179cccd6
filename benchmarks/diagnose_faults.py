"""The adapter through which a collection of training faults judges `nnref.diagnose`.

python score.py --adapter benchmarks.diagnose_faults:adapter
"""

from nnref.diagnosis.api import diagnose_recipe
from nnref.diagnosis.recipe import Recipe


def recipe_of(program):
    """A program of the collection as a recipe: its functions have the same form."""
    return Recipe(
        program.init,
        program.apply,
        program.loss,
        program.penalty,
        train=program.train,
        valid=program.valid,
        optimizer=program.optimizer,
        batch_size=program.batch_size,
        epochs=program.epochs,
        shuffle=program.shuffle,
        kind=program.task,
        metric=program.metric,
    )


def adapter(program):
    """Findings as plain values, the most important first."""
    return diagnose_recipe(recipe_of(program)).to_json()["found"]
