"""What a user did wrong, in the user's words: shown without a traceback, exit code 2."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in a file, an argument or the data: what was given, what is allowed, what to do."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean "..."?` with the nearest known word, or nothing."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f'; did you mean "{match[0]}"?' if match else ""
