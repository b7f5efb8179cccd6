"""Judge `nnref diagnose` on the set-ups that the screening has kept, and on their healthy twins.

    python -m benchmarks.mutants.score --kept kept.jsonl --answers answers.jsonl --seeds 1-399:2

Bounds may be fitted on even seeds; what is quoted is measured on odd ones. Each answer is one line
of the file of answers, so that a run that was stopped goes on where it was.
"""

import argparse
import json
import math
import multiprocessing
import statistics
import sys
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Column, Table

from benchmarks.diagnose_faults import recipe_of
from benchmarks.mutants.draw import draw_mutant
from benchmarks.mutants.faults import FAULTS
from benchmarks.mutants.screen import lines, numbers
from nnref.diagnosis.api import diagnose_recipe

AT_ONCE = 8  # programs of one process: what JAX keeps of each would fill the memory


def answers_of(connection, tasks):
    """In a process of its own: diagnose one program after the other, and send what is said."""
    for seed, attempt, twin in tasks:
        program = draw_mutant(seed, attempt).program(twin)
        connection.send("ready")
        began = time.perf_counter()
        try:
            said = diagnose_recipe(recipe_of(program)).to_json()
            words = ("cause", "severity", "where")
            answer = {"found": [{word: one[word] for word in words} for one in said["found"]]}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        connection.send(answer | {"seconds": round(time.perf_counter() - began, 2)})
        jax.clear_caches()


def judged(tasks, limit):
    """The answer to each task, as it comes; a process that is too slow is ended and begun anew."""
    context = multiprocessing.get_context("spawn")
    rest = list(tasks)
    while rest:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=answers_of, args=(sender, rest), daemon=True)
        process.start()
        sender.close()
        try:
            while rest:
                # Building a program is no part of the time; imports take longest on a busy machine.
                ready = receiver.poll(limit + 300) and receiver.recv()
                answer = receiver.recv() if ready and receiver.poll(limit) else None
                yield rest.pop(0), answer or {"error": "timeout", "seconds": limit}
                if answer is None:
                    break
        except EOFError:
            yield rest.pop(0), {"error": "crash", "seconds": 0.0}
        finally:
            process.kill()
            process.join()


def collect(kept, seeds, path, jobs, limit, twins):
    """Ask for what is not answered yet, and write down each answer."""
    known = {(row["seed"], row["attempt"], row["twin"]) for row in lines(path)}
    rows = {row["seed"]: row for row in lines(kept) if row["kept"] and row["seed"] in seeds}
    tasks = [
        (seed, rows[seed]["attempt"], twin)
        for seed in seeds
        if seed in rows
        for twin in ((False, True) if twins else (False,))
    ]
    tasks = [task for task in tasks if task not in known]
    lock = threading.Lock()

    def work(part):
        for (seed, attempt, twin), answer in judged(part, limit):
            kept_row = {name: rows[seed][name] for name in DESCRIBED}
            row = kept_row | {"attempt": attempt, "twin": twin} | answer
            with lock, path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{seed:5} {row['cause']:30} {said(row)}", file=sys.stderr, flush=True)

    parts = [tasks[at : at + AT_ONCE] for at in range(0, len(tasks), AT_ONCE)]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(work, parts))


DESCRIBED = ("seed", "cause", "way", "source", "style", "family", "optimizer")


# What answers are worth


def alarms(row):
    """Causes that are called faults, the first one first, or the name of an exception."""
    if "error" in row:
        return [row["error"].split(":")[0]]
    return [one["cause"] for one in row["found"] if one["severity"] == "fault"]


def said(row):
    kind = "healthy" if row["twin"] else row["way"]
    return f"{kind:16} {row['seconds']:6.1f} s  {', '.join(alarms(row)) or 'nothing'}"


def wilson(hits, total, z=1.96):
    """The 95 % interval of a share (Wilson 1927)."""
    if total == 0:
        return 0.0, 1.0
    share, spread = hits / total, z * z / total
    centre = (share + spread / 2) / (1 + spread)
    margin = z * math.sqrt(share * (1 - share) / total + spread / total / 4) / (1 + spread)
    return max(0.0, centre - margin), min(1.0, centre + margin)


def rate(flags):
    """Hits, number, share, and its interval."""
    flags = list(flags)
    low, high = wilson(sum(flags), len(flags))
    share = sum(flags) / len(flags) if flags else math.nan
    return {"hits": sum(flags), "total": len(flags), "share": share, "low": low, "high": high}


def accepted_causes():
    """For each cause and way, the words that are right."""
    return {(fault.cause, fault.way): {fault.cause, *fault.accept} for fault in FAULTS}


def figures(rows):
    """Rates of detected and named faults, of false alarms, and the same by cause."""
    right = accepted_causes()
    # An exception is a miss on a fault and an alarm on anything else.
    faulty = [
        row | {"said": [] if "error" in row else alarms(row)} for row in rows if not row["twin"]
    ]
    healthy = [row | {"said": alarms(row)} for row in rows if row["twin"]]
    for row in faulty:
        first = row["said"][0] if row["said"] else None
        row["first"], row["exact"] = first, first == row["cause"]
        row["accepted"] = first in right[row["cause"], row["way"]]
    groups = defaultdict(list)
    for row in faulty:
        groups[row["cause"]].append(row)
    firsts = [row["said"][0] for row in healthy if row["said"]]
    causes = {}
    for cause, group in sorted(groups.items()):
        # Of all that were called by this cause first, those of which it is a right answer.
        called = [row for row in faulty if row["first"] == cause]
        wrong = Counter(row["first"] or "nothing" for row in group if not row["accepted"])
        causes[cause] = {
            "n": len(group),
            "detected": sum(bool(row["said"]) for row in group),
            "exact": sum(row["exact"] for row in group),
            "accepted": sum(row["accepted"] for row in group),
            "precision": rate([row["accepted"] for row in called] + [False] * firsts.count(cause)),
            "confused": dict(wrong.most_common(3)),
            "seconds": statistics.median(row["seconds"] for row in group),
        }
    return {
        "detected": rate(bool(row["said"]) for row in faulty),
        "cause exact": rate(row["exact"] for row in faulty),
        "cause accepted": rate(row["accepted"] for row in faulty),
        "precision of alarms": rate(
            [True] * sum(bool(row["said"]) for row in faulty) + [False] * len(firsts)
        ),
        "false alarms": rate(bool(row["said"]) for row in healthy),
        "exceptions and time-outs": rate("error" in row for row in rows),
        "false alarms by cause": dict(Counter(firsts).most_common()),
        "seconds, median": statistics.median(row["seconds"] for row in rows) if rows else math.nan,
        "causes": causes,
    }


def show(found, console):
    table = Table("cause", *map(right_column, COLUMNS), "said instead")
    for cause, row in found["causes"].items():
        precision = row["precision"]
        table.add_row(
            cause,
            *(str(row[name]) for name in ("n", "detected", "exact", "accepted")),
            f"{precision['hits']}/{precision['total']}",
            f"{row['seconds']:.1f}",
            ", ".join(f"{word} {count}" for word, count in row["confused"].items()),
        )
    console.print(table)
    for name, value in found.items():
        if isinstance(value, dict) and "share" in value:
            console.print(
                f"{name:26} {value['hits']:4}/{value['total']:<4} {value['share']:.3f} "
                f"({value['low']:.3f} to {value['high']:.3f})"
            )
    console.print(f"{'seconds, median':26} {found['seconds, median']:.1f}")
    for cause, count in found["false alarms by cause"].items():
        console.print(f"  false alarm: {cause} {count}")


COLUMNS = ("n", "detected", "exact", "accepted", "precision", "seconds")


def right_column(name):
    return Column(name, justify="right")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kept", type=Path, required=True, help="file of the screening")
    parser.add_argument("--answers", type=Path, required=True, help="file of the answers")
    parser.add_argument("--seeds", type=numbers, default=numbers("0-398:2"), help="such as 1-399:2")
    parser.add_argument("--jobs", type=int, default=1, help="programs at a time")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds for each program")
    parser.add_argument("--no-twins", action="store_true", help="faulty set-ups alone")
    parser.add_argument("--show", action="store_true", help="only what is answered already")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    seeds = arguments.seeds
    if not arguments.show:
        kept, twins = arguments.kept, not arguments.no_twins
        collect(kept, seeds, arguments.answers, arguments.jobs, arguments.limit, twins)
    rows = [row for row in lines(arguments.answers) if row["seed"] in set(seeds)]
    found = figures(rows)
    show(found, Console())
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
