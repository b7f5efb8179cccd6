"""Groups: the variants of a sweep, which of them share a program, and what that costs."""

import copy
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from nnref.data import Dataset, Split
from nnref.errors import UserError
from nnref.experiment.axes import Mistake, Setting, settings_in_words, variants
from nnref.experiment.axes import Sweep as Axes
from nnref.experiment.experiment import Experiment, Mistakes
from nnref.experiment.sources import looking_in, with_digests
from nnref.experiment.text import blank_comments, contents, in_file, locate, read_text, set_path
from nnref.studies.run import plan_of
from nnref.training import loop, train
from nnref.training.setup import Setup, from_experiment
from nnref.training.task import Task
from nnref.training.work import ELEMENTS, nbytes, work_of


class Variant(NamedTuple):
    """One experiment of a sweep, and the settings in which it differs from the file."""

    settings: tuple[Setting, ...]
    experiment: Experiment

    def __str__(self) -> str:
        return settings_in_words(self.settings)


class Job(NamedTuple):
    """One run: a variant, by its place in the sweep, and a seed."""

    variant: int
    seed: int


# --- reading ------------------------------------------------------------------------------------


def read_sweep(path: str | Path, text: str | None = None) -> tuple[Experiment, list[Variant]]:
    """The experiment of a sweep file, and its variants; `text` is what has been read of it.

    Raises:
        UserError: listing every mistake of the file and of its variants, with its path and line.
    """
    path = Path(path)
    text = read_text(path) if text is None else text
    try:
        with looking_in(path.parent):
            return parse_sweep(text)
    except UserError as error:
        raise UserError(in_file(path, str(error))) from None


def parse_sweep(text: str) -> tuple[Experiment, list[Variant]]:
    """`read_sweep` from the text of a file, with the same errors."""
    content = contents(text)
    if content.get("sweep") is None:
        raise UserError(
            'sweep: missing; say what varies: "sweep": {"axes": {"optimizer.learning_rate": '
            '{"log_grid": [0.001, 1, 7]}}}'
        )
    if isinstance(content["sweep"], dict):  # a page holds which files its variants were made with
        content["sweep"] = {k: with_digests(value) for k, value in content["sweep"].items()}
    lines, base = [], None
    try:
        base = Experiment(**content)
    except Mistakes as mistakes:
        lines += mistakes.in_lines_of(text)
    try:
        axes = Axes(**content["sweep"]).axes
    except (TypeError, ValueError):  # the experiment has listed this mistake
        raise UserError("\n".join(lines)) from None
    each, mistakes = variants(axes)
    parsed = []
    for settings in each:
        try:
            parsed.append(Variant(settings, with_settings(content, settings)))
        except UserError as error:
            of_variant = list(at_source(str(error).split("\n"), settings))
            if base is not None and not of_variant:  # its settings are wrong only together
                of_variant = [Mistake("sweep", f"{settings_in_words(settings)}: {error}")]
            mistakes += of_variant
    if base is None or mistakes:
        numbers, _ = locate(blank_comments(text))
        lines += [f"{source}{in_line(source, numbers)}: {what}" for source, what in mistakes]
        raise UserError("\n".join(dict.fromkeys(lines)))
    refuse_twins(parsed)
    if any(each.devices != 1 for each in (base, *(variant.experiment for variant in parsed))):
        raise UserError(
            "devices: the runs of a sweep are trained side by side, each on one device; leave "
            "devices out, or train a single run on them: nnref run"
        )
    return base, parsed


def with_settings(content: dict[str, Any], settings: Sequence[Setting]) -> Experiment:
    """The experiment that a variant is."""
    content = copy.deepcopy({key: value for key, value in content.items() if key != "sweep"})
    for setting in settings:
        set_path(content, setting.path, copy.deepcopy(setting.value))
    return Experiment(**content)


def in_line(source: str, numbers: dict[str, int]) -> str:
    """The number of the line of a key, or of the nearest key around it that has a line."""
    while source and source not in numbers:
        source = source.rpartition(".")[0]
    return f" (line {numbers[source]})" if source else ""


def at_source(lines: Sequence[str], settings: Sequence[Setting]) -> Iterator[Mistake]:
    """The mistakes that the settings of a variant make, each at its place in the sweep file.

    They are read from the lines of the error that the variant raises as an experiment.
    """
    for line in lines:
        path, _, what = line.partition(": ")
        inside = [s for s in settings if path == s.path or path.startswith(f"{s.path}.")]
        if inside:  # other mistakes are those of the experiment without its sweep
            innermost = inside[-1]
            yield Mistake(innermost.source + path.removeprefix(innermost.path), what)


def refuse_twins(variants: Sequence[Variant]) -> None:
    """Refuse two variants that are the same experiment, and name both."""
    seen: dict[str, Variant] = {}
    for variant in variants:
        twin = seen.setdefault(variant.experiment.identity, variant)
        if twin is not variant:
            raise UserError(
                f"sweep: two variants are the same experiment: {twin} and {variant}; keep one"
            )


# --- what a run costs: seconds and memory, estimated from its traced program ---------------------


STEP = 5e-6  # seconds that a step takes beside its arithmetic


class Cost(NamedTuple):
    """What one run costs, estimated from the traced forward pass: seconds and bytes."""

    step: float  # seconds of a step's arithmetic
    seconds: float  # of the whole run
    bytes: int  # of memory while it runs


@lru_cache(maxsize=256)
def cost_of(setup: Setup, plan: train.Plan, shape: tuple[int, ...], dtype: Any, valid: int) -> Cost:
    """What one run of a setup costs, on training inputs of a shape and so many rows to validate."""
    rows, *inputs = shape
    batch = min(plan.batch_size, rows)
    functions, optimizer = setup(setup.experiment.hyperparameters)
    params, model_state = jax.eval_shape(functions.init, jax.random.key(0))
    state = sum(map(nbytes, jax.tree.leaves((params, model_state))))
    state += sum(map(nbytes, jax.tree.leaves(jax.eval_shape(optimizer.init, params))))

    def evaluate(params: Any, model_state: Any, x: Any) -> Any:
        return functions.apply(params, model_state, x, None, False)

    x = jax.ShapeDtypeStruct((batch, *inputs), dtype)
    forward, kept = work_of(jax.make_jaxpr(evaluate)(params, model_state, x).jaxpr)
    weights = sum(leaf.size for leaf in jax.tree.leaves(params))
    step = 3 * forward + 4 * weights / ELEMENTS
    evaluated = min(train.evaluation_batch(functions, plan), max(rows, valid))
    share = valid / batch / plan.evaluate_every
    epoch = setup.steps_per_epoch * (step + STEP) + share * forward + STEP
    history = 4 * 8 * (plan.epochs + 1)
    memory = 3 * state + max(2 * kept, kept * evaluated // batch) + history
    return Cost(float(step), float(plan.epochs * epoch), memory)


# --- groups -------------------------------------------------------------------------------------


TOGETHER = 64  # runs of a tiny network in one program; more of them leave the caches
COMPILATION = 2.0  # seconds, of one program


class Group:
    """Runs of one structure: one program serves all, their hyperparameters are its arguments."""

    def __init__(
        self,
        experiment: Experiment,
        of_variants: Mapping[int, Mapping[str, float]],
        jobs: list[Job],
        dataset: Dataset | None = None,
    ):
        """A group of an experiment, the hyperparameters of each variant, and the runs.

        The data are loaded where none are given.
        """
        self.experiment = experiment
        self.jobs = jobs
        self.of_variants = of_variants
        self.compiled, self.compiling = False, threading.Lock()
        self.plan = plan_of(experiment)._replace(probes="off")  # a sweep keeps losses alone
        self.task, self.setup, self.dataset = from_experiment(experiment, dataset)
        if self.task.stored is not None:
            raise UserError("data: rows that are read from disk are not swept; nnref run does that")

    def hyperparameters(self, jobs: Sequence[Job]) -> dict[str, Any]:
        """The hyperparameters of some runs: a float where the whole group agrees, else (runs,).

        One run alone has floats, and so the same program as `nnref run`.
        """
        each = [self.of_variants[job.variant] for job in jobs]
        if len(jobs) == 1:
            return dict(each[0])
        stacked = {name: np.array([h[name] for h in each], np.float32) for name in self.varied}
        return {**each[0], **stacked}

    @cached_property
    def varied(self) -> set[str]:
        """The hyperparameters in which the variants of the group differ."""
        every = list(self.of_variants.values())
        return {name for name in every[0] if len({h[name] for h in every}) > 1}

    def fit(
        self, jobs: Sequence[Job], resume: Any = None, until: int | None = None
    ) -> Iterator[loop.Chunk]:
        """Train some runs together as `loop.fit` does; the first call compiles, others wait."""
        hyperparameters, seeds = self.hyperparameters(jobs), [job.seed for job in jobs]
        chunks = loop.fit(
            self.setup, self.plan, hyperparameters, seeds, self.on_device, resume, until
        )
        if not self.compiled:
            with self.compiling:
                if not self.compiled:
                    yield from islice(chunks, 2)
                    self.compiled = True
        yield from chunks

    @cached_property
    def on_device(self) -> Task:
        """The task, with its arrays on the device."""
        arrays = jax.device_put(self.task.arrays)
        splits = {name: Split(*arrays[name]) for name in arrays}
        return Task(self.task.functions, splits["train"], splits.get("valid"))

    @cached_property
    def like(self) -> Any:
        """Shapes of the state of one run."""
        start = partial(train.start, self.setup, self.plan)
        return jax.eval_shape(
            start, self.experiment.hyperparameters, np.uint32(0), self.task.arrays
        )[0]

    @cached_property
    def cost(self) -> Cost:
        """What one run costs."""
        x, valid = self.task.train.x, self.task.valid
        rows = 0 if valid is None else len(valid.x)
        return cost_of(self.setup, self.plan, x.shape, x.dtype, rows)

    @cached_property
    def together(self) -> int:
        """How many runs one call of the program trains.

        On a CPU many tiny networks as one program are far faster than one after the other; where
        arithmetic takes the time they are not, convolutions least of all (an axis of runs makes
        one grouped convolution of many), and alone each run stops when it has learned.
        """
        fit = max(1, int(memory_limit() / (self.cost.bytes * workers())))
        wanted = len(self.jobs)
        if jax.default_backend() == "cpu":
            wanted = TOGETHER if self.cost.step < STEP else 1
        most = max(1, min(wanted, fit, len(self.jobs)))
        blocks = -(-len(self.jobs) // most)
        return -(-len(self.jobs) // blocks)

    @property
    def seconds(self) -> float:
        """Estimated seconds of all its runs, the compilation included."""
        shared = min(workers(), -(-len(self.jobs) // self.together))
        # A call of the program takes each step's overhead once for all of its runs.
        saved = self.plan.epochs * self.setup.steps_per_epoch * STEP * (1 - 1 / self.together)
        return COMPILATION + len(self.jobs) * (self.cost.seconds - saved) / shared


def workers() -> int:
    """Programs that run side by side: one for each core, one on an accelerator."""
    if jax.default_backend() != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_limit() -> float:
    """Bytes that runs may take: half of what the device has."""
    return loop.memory() / 2


def groups_of(variants: Sequence[Variant], seeds: Sequence[int]) -> list[Group]:
    """The runs of some variants, by the program that they share.

    Raises:
        UserError: for data that cannot be loaded, or do not fit.
    """
    members: dict[Any, list[Job]] = {}
    for number, (_, experiment) in enumerate(variants):
        data = experiment.data.model_dump_json()
        # An argument that is null is structure, too: its term is not in the program.
        key = (experiment.structure, tuple(experiment.hyperparameters), plan_of(experiment), data)
        members.setdefault(key, []).extend(Job(number, seed) for seed in seeds)
    groups = []
    for jobs in members.values():
        each = {job.variant: variants[job.variant].experiment for job in jobs}
        of_variants = {number: one.hyperparameters for number, one in each.items()}
        groups.append(Group(each[jobs[0].variant], of_variants, jobs))
    return groups
