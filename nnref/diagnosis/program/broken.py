"""An exception of the user's own, told as theirs."""

import traceback

from nnref.diagnosis.findings import PACKAGE, Finding
from nnref.diagnosis.program.tracing import is_library
from nnref.errors import UserError


def broken(error: Exception) -> Finding:
    """A user's exception as a finding, with the user's own file and line.

    Raises:
        UserError: where that is what it is.
    """
    if isinstance(error, UserError):
        raise error
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [
        f for f in frames if not f.filename.startswith(PACKAGE) and not is_library(f.filename)
    ]
    frame = (theirs or frames)[-1]  # what the user gave may be a library's own function
    message = str(error).strip().splitlines() or [type(error).__name__]
    return Finding(
        "broken_program",
        "fault",
        f"{frame.filename}:{frame.lineno}",
        f"{type(error).__name__}: {message[0]}",
        measured=(frame.line or "").strip(),
    )
