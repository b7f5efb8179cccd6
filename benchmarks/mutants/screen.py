"""Which healthy set-ups learn, and which faults bite: both are trained from two seeds.

    python -m benchmarks.mutants.screen --seeds 0-99 --kept mutants.jsonl

Each seed is one line of the file of what is kept; seeds that stand there are not trained again.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from benchmarks.mutants.data import Data
from benchmarks.mutants.draw import Mutant, draw_mutant
from benchmarks.mutants.losses import chance
from benchmarks.mutants.planting import labels
from benchmarks.mutants.program import Program, program_of
from benchmarks.mutants.setup import Setup

LEARNS = 0.7  # skill on training rows: the generators leave at most a tenth to noise
HOLDS = 0.5  # skill on validation rows
SIMPLE = 0.9  # of the skill of the best simple model, at least
BITES = 0.67  # of the healthy twin's skill: at most this from both seeds
ATTEMPTS = 4
SEEDS = (11, 12)
# Small programs that run once: to compile them takes longer than to run them.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_parallel_codegen_split_count": 1,
}


def ends(setup: Setup, judged: str) -> dict[str, list[float]]:
    """Skill on training, validation and judging rows, of a run from each of the seeds.

    Skill is the share of the way from the best constant answer to a perfect one.
    """
    data, program = setup.data, program_of(setup)
    x, y = (jnp.asarray(part) for part in program.train)
    parts = {"train": data.train, "valid": data.valid}
    parts["judged"] = data.fresh if judged == "last" else getattr(data, judged)

    def objective(params, state, at, key):
        outputs, state = program.apply(params, state, x[at], key, True)
        return program.loss(outputs, y[at]) + program.penalty(params), state

    def start(key):
        params, state = program.init(key)
        return params, state, program.optimizer.init(params)

    def step(carry, given):
        params, state, moments = carry
        at, key = given
        (_, state), gradients = jax.value_and_grad(objective, has_aux=True)(params, state, at, key)
        updates, moments = program.optimizer.update(gradients, moments, params)
        return (optax.apply_updates(params, updates), state, moments), None

    def measured(carry):
        reached = {}
        for name, (inputs, targets) in parts.items():
            outputs = program.apply(*carry[:2], jnp.asarray(inputs), None, False)[0]
            if name == "judged" and judged == "last":
                outputs, targets = outputs[:, -1:], targets[:, -1:]
            reached[name] = program.metric(outputs, jnp.asarray(targets))
        return reached

    @partial(jax.jit, compiler_options=QUICK)
    def run(key, order):
        first, rest = jax.random.split(key)
        keys = jax.random.split(rest, len(order))
        return measured(jax.lax.scan(step, start(first), (order, keys))[0])

    def in_steps(key, order):
        """On a CPU, XLA runs convolutions inside a scan about ten times slower."""
        first, key = jax.random.split(key)
        carry, one = jax.jit(start)(first), jax.jit(step)
        for at in order:
            key, own = jax.random.split(key)
            carry, _ = one(carry, (at, own))
        return measured(carry)

    trained = in_steps if setup.family == "conv" else run
    reached = [trained(jax.random.key(s), order_of(program, s)) for s in SEEDS]
    return {name: [share(data, end[name], parts[name][1]) for end in reached] for name in parts}


def order_of(program: Program, seed: int) -> np.ndarray:
    """The rows of each step, (steps, rows of a batch)."""
    rows = len(program.train[0])
    batch, draw = min(program.batch_size, rows), np.random.default_rng(seed)
    total = rows // batch * batch
    orders = [
        draw.permutation(rows) if program.shuffle else np.arange(rows)
        for _ in range(program.epochs)
    ]
    return np.concatenate([order[:total].reshape(-1, batch) for order in orders])


def share(data: Data, reached: float, y: np.ndarray) -> float:
    base = chance(data.kind, y)
    found = (float(reached) - base) / (1 - base) if base < 1 else 0.0
    return round(max(found, -1.0), 3) if np.isfinite(found) else -1.0


def simple_skill(setup: Setup) -> float:
    """The best of a linear model and of five neighbours on the validation rows; 0 for texts."""
    data = setup.data
    if data.form in ("text", "ratings", "codes") or data.kind == "multilabel":
        return 0.0
    (x, y), (x_valid, y_valid) = data.train, data.valid
    if data.form == "tokens":
        x, x_valid = (np.eye(data.vocabulary)[part].mean(1) for part in (x, x_valid))
    x, x_valid = x.reshape(len(x), -1), x_valid.reshape(len(x_valid), -1)
    if not (np.isfinite(x).all() and np.isfinite(x_valid).all()):
        return 0.0
    if data.kind == "regression":
        models = Ridge(1.0), KNeighborsRegressor(5)
        scores = [model.fit(x, y).score(x_valid, y_valid) for model in models]
        return max(0.0, *scores)
    y, y_valid = labels(y), labels(y_valid)
    models = LogisticRegression(max_iter=200), KNeighborsClassifier(5)
    scores = [model.fit(x, y).score(x_valid, y_valid) for model in models]
    base = np.bincount(y_valid).max() / len(y_valid)
    return max(0.0, (max(scores) - base) / (1 - base))


def screened(mutant: Mutant) -> dict:
    """Skills of both twins on the rows that judge, and what follows."""
    judged = mutant.fault.judged
    good, simple = ends(mutant.healthy, judged), simple_skill(mutant.healthy)
    row = {"simple": round(float(simple), 3), "healthy": good}
    row["learns"] = bool(
        min(good["train"]) >= LEARNS and min(good["valid"]) >= max(HOLDS, SIMPLE * simple)
    )
    if not row["learns"]:
        return row | {"bites": False}
    bad = ends(mutant.faulty, judged)
    pairs = zip(bad["judged"], good["judged"], strict=True)
    bites = all(b <= BITES * g for b, g in pairs) and min(good["judged"]) >= HOLDS
    return row | {"faulty": bad, "bites": bites}


def keep(seed: int) -> dict:
    """The first attempt of a seed that learns and bites, with what became of those before."""
    tried = []
    for attempt in range(ATTEMPTS):
        began = time.perf_counter()
        mutant = draw_mutant(seed, attempt)
        row = {
            "seed": seed,
            "attempt": attempt,
            "cause": mutant.fault.cause,
            "way": mutant.fault.way,
            "source": mutant.healthy.source,
            "style": mutant.healthy.style,
            "family": mutant.healthy.family,
            "optimizer": mutant.healthy.steps.name,
        }
        try:
            row |= screened(mutant)
        except Exception as error:  # a set-up that cannot be built is a mistake of the generator
            row |= {
                "learns": False,
                "bites": False,
                "error": f"{type(error).__name__}: {error}"[:300],
            }
        jax.clear_caches()
        row["seconds"] = round(time.perf_counter() - began, 1)
        if row["learns"] and row["bites"]:
            return row | {"kept": True, "refused": tried}
        tried.append(row)
    return {"seed": seed, "cause": row["cause"], "way": row["way"], "kept": False, "refused": tried}


def lines(path: Path) -> list[dict]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def numbers(text: str) -> list[int]:
    """`1-399:2` is 1, 3, … 399; `7` is 7."""
    bounds, _, step = text.partition(":")
    first, _, last = bounds.partition("-")
    return list(range(int(first), int(last or first) + 1, int(step or 1)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=numbers, default=numbers("0-99"))
    parser.add_argument("--kept", type=Path, required=True, help="file of what was kept")
    arguments = parser.parse_args()
    known = {row["seed"] for row in lines(arguments.kept)}
    for seed in arguments.seeds:
        if seed in known:
            continue
        row = keep(seed)
        with arguments.kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        word = f"kept at attempt {row['attempt']}" if row["kept"] else "not kept"
        print(f"{seed:5} {row['cause']:30} {row['way']:16} {word}", flush=True)


if __name__ == "__main__":
    main()
