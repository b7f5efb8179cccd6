"""The table of parts."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from nnref.bounds import NonNegative
from nnref.experiment.experiment import FAMILIES
from nnref.experiment.schema import member_model
from nnref.report.terminal.parts import parts_as_markdown


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
    """As docs/how_it_is_built.md has it: keys and ranges follow from the signature."""

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
