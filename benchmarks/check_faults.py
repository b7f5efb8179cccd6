"""On which of the programs of a folder `nnref.check` raises, and with which property.

    python -m benchmarks.check_faults FOLDER --every 6 --seconds 60

FOLDER holds `programs.py` and `labels.json`, as `benchmarks/diagnose_faults.py` takes them.
"""

import argparse
import importlib
import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import nnref
from benchmarks.diagnose_faults import recipe_of
from nnref.errors import UserError
from nnref.training.compilation import use_cache


class TooLong(BaseException):
    """The time of a program is over; no check takes it for an error of the network."""


def too_long(*_: object) -> None:
    raise TooLong


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--every", type=int, default=1, help="of the programs, every so many")
    options.add_argument("--first", type=int, default=0)
    options.add_argument("--seconds", type=int, default=120, help="of a core, for one program")
    options.add_argument("--only", nargs="+", help="names of programs")
    asked = options.parse_args()
    use_cache()
    signal.signal(signal.SIGPROF, too_long)
    sys.path.insert(0, str(asked.folder))
    programs = importlib.import_module("programs")
    labels = json.loads((asked.folder / "labels.json").read_text())
    counted = Counter()
    for name in asked.only or sorted(labels)[asked.first :: asked.every]:
        label, began = labels[name], time.process_time()
        signal.setitimer(signal.ITIMER_PROF, asked.seconds)
        try:
            nnref.check(recipe_of(programs.load(name)))
            said = ""
        except AssertionError as error:
            said = str(error).splitlines()[0]
        except UserError as error:
            said = f"refused, {error}"
        except TooLong:
            counted["not finished", True] += 1
            print(f"{name:<18} not finished in {asked.seconds} s", flush=True)
            continue
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        kind = "fault" if label["kind"] == "fault" else "no fault"
        counted[kind, bool(said)] += 1
        seconds = time.process_time() - began
        print(
            f"{name:<18} {label['kind']:<9} {label['cause'] or '':<28} {seconds:3.0f} s  {said}",
            flush=True,
        )
    for kind in ("fault", "no fault"):
        both = counted[kind, True] + counted[kind, False]
        print(f"{kind}: raises on {counted[kind, True]} of {both}")
    print(f"not finished: {counted['not finished', True]}")


if __name__ == "__main__":
    main()
