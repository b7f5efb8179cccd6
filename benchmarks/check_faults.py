"""On which of the programs of a folder `nnref.check` raises, and with which property.

    python -m benchmarks.check_faults FOLDER --every 6

FOLDER holds `programs.py` and `labels.json`, as `benchmarks/diagnose_faults.py` takes them.
"""

import argparse
import importlib
import json
import sys
import time
from collections import Counter
from pathlib import Path

import nnref
from benchmarks.diagnose_faults import recipe_of
from nnref.errors import UserError
from nnref.training.compilation import use_cache


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--every", type=int, default=1, help="of the programs, every so many")
    options.add_argument("--first", type=int, default=0)
    asked = options.parse_args()
    use_cache()
    sys.path.insert(0, str(asked.folder))
    programs = importlib.import_module("programs")
    labels = json.loads((asked.folder / "labels.json").read_text())
    counted = Counter()
    for name in sorted(labels)[asked.first :: asked.every]:
        label, began = labels[name], time.process_time()
        try:
            nnref.check(recipe_of(programs.load(name)))
            said = ""
        except AssertionError as error:
            said = str(error).splitlines()[0]
        except UserError as error:
            said = f"refused, {error}"
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


if __name__ == "__main__":
    main()
