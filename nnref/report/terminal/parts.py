"""The table of parts: every member of every family, with its arguments, as Markdown."""

import json
from typing import Any

from pydantic import TypeAdapter

from nnref.experiment.experiment import FAMILIES, Record
from nnref.experiment.schema import Part, member_model

INTRODUCTION = """\
# Parts

Every part that an experiment file can name, with its arguments, drawn from the signatures and
docstrings of the functions. Write a part as its name, or as `{"name": ..., its arguments}`. The
docstrings in the code have the equations, the papers and the pitfalls.
"""

SIGNS = {
    "minimum": "from {}",
    "exclusiveMinimum": "above {}",
    "maximum": "to {}",
    "exclusiveMaximum": "below {}",
}


def parts_as_markdown() -> str:
    """A section for each family, a row for each member."""
    sections = [INTRODUCTION]
    for kind, family in FAMILIES.items():
        rows = [f"\n## {kind}\n", "| name | what | arguments |", "|---|---|---|"]
        for name, function in family.items():
            part = member_model(kind, name, function)
            about = (part.model_fields["name"].description or "").rstrip(".")
            rows.append(f"| `{name}` | {cell(about)} | {cell(arguments(part))} |")
        sections.append("\n".join(rows))
    sections.append("\n## regularization\n\nAll keys of one object; what is null is off.\n")
    sections.append("| key | what |\n|---|---|")
    for line in arguments(Record, " \n").split(" \n"):
        key, _, about = line.partition(": ")
        sections.append(f"| {key} | {cell(about)} |")
    return "\n".join(sections) + "\n"


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def arguments(part: type[Part], between: str = "<br>") -> str:
    """Each argument with its range, default and line of the docstring."""
    lines = []
    for name, field in part.model_fields.items():
        if name == "name":
            continue
        schema = TypeAdapter(field.rebuild_annotation()).json_schema()
        words = allowed(schema)
        value = field.default
        if isinstance(value, Part):
            value = getattr(value, "name", {})
        default = "" if field.is_required() else f" = {json.dumps(value)}"
        lines.append(f"`{name}{default}`{f' ({words})' if words else ''}: {field.description}")
    return between.join(lines)


def allowed(schema: dict[str, Any]) -> str:
    """The range of a number or the words of a choice, in words."""
    for one in [schema, *schema.get("anyOf", [])]:
        if "enum" in one and "$defs" not in schema:
            return ", ".join(map(str, one["enum"]))
        # Whole numbers end where 32 bits end, which need not be said of each.
        ends = {key: text for key, text in SIGNS.items() if one.get(key, 2**32) < 2**31 - 1}
        signs = [text.format(f"{one[key]:g}") for key, text in ends.items()]
        if signs:
            return " ".join(signs)
    return ""
