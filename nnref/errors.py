"""What a user did wrong, in the user's words: shown without a traceback, exit code 2."""

import difflib
import re
from collections.abc import Iterable

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class UserError(ValueError):
    """A mistake in a file, an argument or the data: what was given, what is allowed, what to do."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean "..."?` with the nearest known word, or nothing."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f'; did you mean "{match[0]}"?' if match else ""


def printable(text: object) -> str:
    """A text whose control characters cannot move the cursor of a terminal, or change its title."""
    return CONTROL.sub("�", str(text))
