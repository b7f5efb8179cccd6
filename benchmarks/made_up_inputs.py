"""Made-up files and command lines: each ends with exit code 0, 1 or 2, and no traceback."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as some

# An experiment that nothing is trained of: it is shown, with the table of its layers.
WHOLE = {
    "about": "made up",
    "data": {"name": "file", "path": "table.csv", "target": "b"},
    "model": {"name": "mlp", "hidden": [4], "activation": "relu"},
    "loss": "squared_error",
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "schedule": {"name": "cosine"},
    "regularization": {"l2": 0.1},
    "clipping": {"name": "global_norm", "threshold": 1.0},
    "stop": {"metric": "valid_loss", "patience": 3},
    "batch_size": 4,
    "epochs": 3,
    "seeds": [0],
    "claim": {"metric": "train_loss", "at_most": 1, "in": 1, "of": 1},
    "sweep": {"axes": {"batch_size": [1, 2]}, "halving": {"rungs": [1, 3]}},
}
JUNK = some.recursive(
    some.none()
    | some.booleans()
    | some.integers()
    | some.floats()
    | some.text(max_size=8)
    | some.sampled_from(
        ["sgd", "[/x]", "\x1b[31m", "..", "a/b", "é", "1e999", 10**400, -0.0, 2**63]
    ),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(some.sampled_from(["name", "grid", "count", "x", "momentum"]), inner)
    ),
    max_leaves=4,
)
COMMANDS = """
run show list log near note tree diff report plot sweep ablate copy claims schema parts data predict
sample resume diagnose crawl lr-range regularize --seed --set --epochs --json --where --sort -o
--logbook --dry-run --no-logbook whole whole.json page.json table.csv -1 0 1e400 4294967296 a=b
optimizer.learning_rate=0.1 [/x] .. / :make [bold]
"""
WORDS = some.sampled_from(COMMANDS.split())
# Words that train, or read what may be large, are asked with other inputs.
SLOW = {"claims", "crawl", "lr-range", "regularize", "run", "sweep", "ablate", "diagnose"}


@some.composite
def experiments(draw: Any) -> str:
    """The experiment above, some of whose keys hold something else, or are gone."""
    content: Any = json.loads(json.dumps(WHOLE))
    for _ in range(draw(some.integers(1, 3))):
        place = content
        for _ in range(draw(some.integers(0, 2))):
            inner = [v for v in place.values() if isinstance(v, dict) and v]
            place = draw(some.sampled_from(inner)) if inner else place
        key = draw(some.sampled_from([*place, "made_up"]))
        if draw(some.booleans()) or key not in place:
            place[key] = draw(JUNK)
        else:
            del place[key]
    text = json.dumps(content, indent=1)
    if draw(some.integers(0, 9)) == 0:
        cut = draw(some.integers(0, len(text)))
        text = text[:cut] + draw(some.sampled_from(["", "{", "[" * 5000, '"', "// x", "\x00"]))
    return text


@some.composite
def pages(draw: Any, page: str) -> str:
    """A page some of whose lines are gone, doubled, or hold something else; without its seal."""
    lines = [line for line in page.splitlines() if not line.startswith("// sha256")]
    for _ in range(draw(some.integers(1, 3))):
        place = draw(some.integers(0, len(lines) - 1))
        change = draw(some.sampled_from(["gone", "doubled", "other", "note"]))
        other = {"other": [f"// {draw(some.text(max_size=20))}"], "gone": [], "note": ["// 3 x y"]}
        lines[place : place + 1] = other.get(change, [lines[place]] * 2)
    return "\n".join(lines) + draw(some.sampled_from(["", "\n", "\n/", "\x00\x00"]))


TABLES = some.lists(
    some.lists(
        some.sampled_from(["1", "2.5", "", "nan", "1e999", "x", '"', "\x00", "é", "9" * 400])
    ),
    max_size=6,
).map(lambda rows: "a,b\n" + "\n".join(map(",".join, rows)))
BYTES = some.binary(max_size=60)
ARRAYS = some.tuples(
    some.lists(some.integers(0, 3), max_size=3),
    some.sampled_from(["f8", "i1", "?", "c8", "U3", "M8[s]", "f2"]),
    some.integers(0, 200),
)


def asked(
    count: int, number: int, folder: Path, called: Callable[..., tuple[int, str]]
) -> tuple[Counter[int], list[str]]:
    """Exit codes of so many inputs, and those that were none of a command.

    Args:
        count: of all inputs.
        number: the seed of what is drawn.
        folder: in which they are written.
        called: `called(*arguments)` gives exit code and output of a command.
    """
    codes: Counter[int] = Counter()
    failures: list[str] = []
    logbook = folder / "logbook"
    table, whole, page = folder / "table.csv", folder / "whole.json", folder / "page.json"
    table.write_text("a,b\n" + "".join(f"{i},{i / 3}\n" for i in range(30)))
    plain = {key: value for key, value in WHOLE.items() if key not in ("sweep", "claim")}
    plain |= {"data": WHOLE["data"] | {"path": str(table)}}
    whole.write_text(json.dumps(plain))
    trained = called("run", whole, "--logbook", logbook)
    if trained[0]:
        raise RuntimeError(f"the plain experiment did not run: {trained[1]}")
    made = next(logbook.rglob("*-seed0.json"))
    text = made.read_text()
    other = folder / "other" / "small"
    other.mkdir(parents=True)

    def ask(*arguments: object) -> None:
        code, said = called(*arguments)
        codes[code] += 1
        if code not in (0, 1, 2) or "Traceback" in said:
            failures.append(f"{arguments} {code}: {said[-1500:]}")

    def draws(share: float) -> Callable[[Any], Any]:
        how = settings(
            max_examples=max(1, round(share * count)),
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        )
        return lambda test: seed(number)(how(test))

    @draws(0.4)
    @given(experiments())
    def of_experiments(content: str) -> None:
        page.write_text(content.replace("table.csv", str(table)), errors="replace")
        ask("show", page)

    @draws(0.2)
    @given(pages(text))
    def of_pages(content: str) -> None:
        (other / made.name).write_text(content, errors="replace")
        (other.parent / "index.json").unlink(missing_ok=True)
        ask("log", "--logbook", other.parent)
        ask("show", other / made.name)

    @draws(0.1)
    @given(TABLES | BYTES)
    def of_tables(content: str | bytes) -> None:
        where = folder / "made_up.csv"
        where.write_bytes(content if isinstance(content, bytes) else content.encode())
        ask("predict", made, where)

    @draws(0.1)
    @given(ARRAYS, ARRAYS)
    def of_archives(x: Any, y: Any) -> None:
        where, arrays = folder / "made_up.npz", {}
        for name, (shape, dtype, _) in (("x", x), ("b", y)):
            arrays[name] = np.zeros(shape, dtype)
        np.savez(where, **arrays)
        content = where.read_bytes()
        where.write_bytes(content[: len(content) - x[2]])
        data = WHOLE["data"] | {"path": str(where)}
        page.write_text(json.dumps(plain | {"data": data}))
        ask("show", page)

    @draws(0.1)
    @given(BYTES | JUNK)
    def of_the_index(content: Any) -> None:
        where = logbook / "index.json"
        where.write_bytes(
            content if isinstance(content, bytes) else json.dumps(content, default=str).encode()
        )
        ask("log", "--logbook", logbook)

    @draws(0.1)
    @given(some.lists(WORDS, max_size=5))
    def of_command_lines(words: list[str]) -> None:
        if SLOW.isdisjoint(words):
            ask(*words)

    for part in (of_experiments, of_pages, of_tables, of_archives, of_the_index, of_command_lines):
        part()
    return codes, failures
