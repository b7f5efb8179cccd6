"""The command `nnref`: parses, calls, prints."""

import errno
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnref.cli.grammar import parsed
from nnref.errors import UserError, printable

INTERRUPTED = 130
# Settings of JAX that are about the lines of a program of one's own, and stop those of nnref.
STOPS = (
    "JAX_DEBUG_INFS",
    "JAX_DEBUG_NANS",
    "JAX_DISABLE_JIT",
    "JAX_NUMPY_DTYPE_PROMOTION",
    "JAX_NUMPY_RANK_PROMOTION",
    "JAX_TRANSFER_GUARD",
)
# What the machine refuses, and is no mistake in nnref: a full disk, a folder that is read-only.
OF_THE_MACHINE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    The exit code is 0, 1 (did not hold), 2 (a user's mistake), 3 (nnref's own) or 130.
    """
    for name in STOPS:  # before JAX is imported
        os.environ.pop(name, None)
    sys.stdout.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]
    warnings.showwarning = show_warning
    options = parsed(sys.argv[1:] if arguments is None else arguments)
    if getattr(options, "coordinator", None) is None:
        return outcome(options)
    return processes().ended(lambda: outcome(options))


def outcome(options: Any) -> int:
    """The exit code of a command, after what went wrong has been said."""
    try:
        return options.command(options)
    except UserError as error:
        return processes().refuse(error)
    except KeyboardInterrupt as interrupted:
        # Only the training of a run has a page to name, which is None where it writes none.
        page = getattr(interrupted, "page", "the same command goes on where it was")
        advice = f"to go on: nnref resume {page}" if isinstance(page, Path) else page
        if processes().leads():
            print(f"interrupted; {advice or 'nothing was written down'}", file=sys.stderr)
        return processes().interrupted(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in OF_THE_MACHINE:
            raise
        return processes().refuse(of_the_machine(error))
    except (RuntimeError, AssertionError):
        from nnref.training.compilation import platform_missing

        missing = platform_missing()
        if not missing:
            raise
        return processes().refuse(missing)


def processes() -> Any:
    """The processes that may share a run; they are loaded where they are asked, not at a start."""
    from nnref.training import processes

    return processes


def of_the_machine(error: OSError) -> str:
    """What the system refused, where, and that nothing is lost."""
    place = f"{error.filename}: " if error.filename else ""
    return (
        f"{place}{(error.strerror or 'refused').lower()}; once that is mended, the same command "
        "goes on where it was"
    )


def show_warning(message: Warning | str, *_: Any) -> None:
    """A warning is one line on stderr, without the place in our code."""
    print(f"nnref: warning: {printable(message)}", file=sys.stderr)
