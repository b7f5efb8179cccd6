"""Speed of sweeps: many variants as few programs, beside one after the other and PyTorch.

PyTorch trains the variants one after the other, or shared out to two spawned processes that wait,
with PyTorch imported, before the clock starts.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

import nnref
from nnref.studies.sweep import sweep
from nnref.studies.sweep_record import SweepPlan, plan_sweep
from nnref.training.loop import chunk_program

if TYPE_CHECKING:
    from run import Work

PROJECT = Path(__file__).parent.parent
RATES_AND_SEEDS = {64: (4, 16), 1024: (64, 16)}
PROCESSES = 2


def sweep_file(name: str, variants: int, folder: Path) -> Path:
    """A shipped experiment over learning rates and seeds."""
    rates, seeds = RATES_AND_SEEDS[variants]
    content = json.loads((PROJECT / "experiments" / f"{name}.json").read_text())
    rate = content["optimizer"]["learning_rate"]
    content |= {"seeds": {"count": seeds}, "claim": []}
    content["sweep"] = {"axes": {"optimizer.learning_rate": {"log_grid": [rate / 4, rate, rates]}}}
    path = folder / f"{name}_{variants}.json"
    path.write_text(json.dumps(content))
    return path


def one_file(name: str, folder: Path) -> Path:
    """The experiment with one seed and no claim."""
    content = json.loads((PROJECT / "experiments" / f"{name}.json").read_text())
    path = folder / f"{name}_one.json"
    path.write_text(json.dumps(content | {"seeds": [0], "claim": []}))
    return path


Timed = Callable[[], None]


def doors(name: str, sizes: Sequence[int], folder: Path) -> dict[str, Timed]:
    """One run, sweeps, and the runs of the first sweep in turn.

    The logbook of a sweep is one compressed file of all losses, which takes longer than to compute
    them where networks are tiny: it is measured apart.
    """
    number = count()
    one = one_file(name, folder)

    def fresh() -> Path:
        return folder / f"logbook-{next(number)}"

    def in_turn(plan: SweepPlan) -> Timed:
        def run() -> None:
            for variant in plan.variants:
                for seed in plan.seeds:
                    nnref.run(variant.experiment, seeds=[seed], logbook=None)

        return run

    first = plan_sweep(sweep_file(name, sizes[0], folder))
    timed: dict[str, Timed] = {
        "nnref.run, one run": lambda: nnref.run(one, logbook=None),
        "nnref.run, one run, with logbook": lambda: nnref.run(one, logbook=fresh()),
    }
    for size in sizes:
        path = sweep_file(name, size, folder)
        timed[f"nnref sweep, {size:,} runs"] = lambda path=path: sweep(path, logbook=None)
        timed[f"nnref sweep, {size:,} runs, with logbook"] = lambda path=path: sweep(
            path, logbook=fresh()
        )
    timed[f"nnref.run, {sizes[0]} runs in turn"] = in_turn(first)
    return timed


# --- PyTorch ------------------------------------------------------------------------------------


def plain(work: Work) -> SimpleNamespace:
    """What PyTorch needs of a work, as plain values that another process can be given."""
    its = work.experiment.optimizer
    experiment = SimpleNamespace(
        optimizer=SimpleNamespace(**its.model_dump()),
        model=SimpleNamespace(
            activation=SimpleNamespace(name=work.experiment.model.activation.name)
        ),
        loss=SimpleNamespace(name=work.experiment.loss.name),
        batch_size=work.experiment.batch_size,
    )
    task = SimpleNamespace(train=tuple(work.task.train), valid=tuple(work.task.valid))
    return SimpleNamespace(
        experiment=experiment, task=task, weights=work.weights, orders=work.orders
    )


def train_all(works: Sequence[SimpleNamespace], update: str) -> list[Any]:
    """Every run in turn, in this process."""
    import pytorch

    return [pytorch.functions(work, 1, update)() for work in works]


def in_pytorch(works: Sequence[SimpleNamespace], update: str, pool: Any) -> dict[str, Timed]:
    """The same runs one after the other, and shared out to processes."""
    shares = [works[first::PROCESSES] for first in range(PROCESSES)]
    return {
        f"PyTorch, {len(works)} runs in turn, 1 thread": lambda: train_all(works, update),
        f"PyTorch, {len(works)} runs, {PROCESSES} processes": lambda: pool.starmap(
            train_all, [(share, update) for share in shares], chunksize=1
        ),
    }


# --- measuring ----------------------------------------------------------------------------------


def apart(plan: SweepPlan, works: Sequence[SimpleNamespace], update: str) -> float:
    """The largest relative difference of a loss of the sweep from that of PyTorch."""
    records = sweep(plan, logbook=None).records
    curves = train_all(works, update)
    pairs = zip((records[job] for job in plan.jobs[: len(works)]), curves, strict=True)
    return max(
        float(np.max(np.abs(record.history[f"{part}_loss"][1:] - curve) / (np.abs(curve) + 1e-3)))
        for record, both in pairs
        for part, curve in zip(("train", "valid"), both, strict=True)
    )


def measure_sweeps(name: str, sizes: Sequence[int], rounds: int, make_work: Any) -> Any:
    """A table of one work. `make_work(content, folder, ...)` is that of the other measurements."""
    from run import Result, seconds

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        plan = plan_sweep(sweep_file(name, sizes[0], folder))
        programs = [chunk_program(tiny) for tiny in (True, False)]
        before = sum(program._cache_size() for program in programs)
        began = time.perf_counter()
        sweep(plan, logbook=None)
        first = time.perf_counter() - began
        compiled = sum(program._cache_size() for program in programs) - before
        timed = doors(name, sizes, folder)
        difference = None
        pool = None
        try:
            import torch  # noqa: F401  - is it there at all?

            update = "written out" if name == "xor_small" else "optim"
            contents = [
                json.loads(variant.experiment.replaced({"seeds": [seed], "claim": []}).to_json())
                for variant in plan.variants
                for seed in plan.seeds
            ]
            works_folder = folder / "works"
            works_folder.mkdir()
            works = [plain(make_work(c, works_folder, tolerance=1, target=1)) for c in contents]
            difference = apart(plan, works[:4], update)
            spawned = multiprocessing.get_context("spawn")
            barrier = spawned.Barrier(PROCESSES + 1)
            pool = spawned.Pool(PROCESSES, initializer=warm, initargs=(barrier, works[0], update))
            barrier.wait()
            timed |= in_pytorch(works, update, pool)
        except ImportError:
            pass
        try:
            prepared = {name: lambda run=run: run for name, run in timed.items()}
            quick = {n: ready for n, ready in prepared.items() if not n.startswith("PyTorch")}
            for ready in quick.values():
                ready()()  # compiles, and warms every cache
            taken = seconds(quick, rounds)
            # What takes long and is far from any bound, is measured once.
            taken |= seconds({n: r for n, r in prepared.items() if n not in quick}, 1)
        finally:
            if pool is not None:
                pool.terminate()
                pool.join()
    medians = {n: median(values) for n, values in taken.items()}
    one = medians["nnref.run, one run"]
    columns = ("", "ms, median", "fastest", "slowest", "times one run")
    rows = [
        (n, *(f"{1e3 * f(v):.1f}" for f in (median, min, max)), f"{medians[n] / one:.1f}")
        for n, v in taken.items()
    ]
    rows.append(("the first sweep, with compilation", f"{1e3 * first:.0f}", "", "", ""))
    in_turn = medians[f"nnref.run, {sizes[0]} runs in turn"]
    swept = {size: medians[f"nnref sweep, {size:,} runs"] for size in sizes}
    if name == "xor_small":
        bounds = {64: 3.0, 1024: 20.0}
        held = all(swept[size] <= bounds[size] * one for size in sizes)
        target = "; ".join(
            f"{size:,} runs at most {bounds[size]:g} times as long as one: {swept[size] / one:.1f}"
            for size in sizes
        )
    else:
        held = swept[sizes[0]] <= in_turn and compiled == 1
        target = (
            f"{sizes[0]} runs no longer than in turn ({swept[sizes[0]] / in_turn:.2f} times), "
            f"and compiled once ({compiled})"
        )
    if difference is not None:
        target += f"; losses as PyTorch's to {difference:.0e}"
    title = f"sweep of {name}: rates × seeds"
    return Result(title, columns, rows, target, held)


def warm(barrier: Any, work: SimpleNamespace, update: str) -> None:
    """Train one run in a process, before the clock starts: PyTorch imports much of itself late."""
    train_all([work], update)
    barrier.wait()
