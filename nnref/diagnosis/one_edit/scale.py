"""A number of a user's evaluation as an error: which way is better, and how much is a cure."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from nnref.diagnosis.thresholds import bound

LARGER = (
    "acc|correct|hit|recall|precision|f1|auc|r2|return|reward|score|iou|dice|corr|psnr|success|ndcg"
    "|mrr|map|coverage|bleu|win|match|purity|agreement|explained"
)
SMALLER = (
    "loss|err|mse|mae|rmse|nll|perplexity|ppl|bits|distance|dist|regret|gap|kl|fid|wer|cer|mape"
    "|nrmse|negative log|residual|divergence|brier|ece|chamfer|wasserstein|mmd|deviation|bias"
)
# What people write who say it themselves.
SAID = {
    r"\b(?:greater|larger|higher|bigger|more) is better": True,
    r"\b(?:smaller|lower|less) is better": False,
}
# What is 1 at best, however far below 0 it begins.
SHARE = re.compile(
    r"\b(?:r2|r squared|explained|accuracy|auc|f1|iou|dice|ndcg|1 is (?:the )?best|1 is perfect)\b"
)
# Numbers but 1, as the -1 of "about -1 is best".
OTHER = re.compile(r"(?<![\w.])[-\u2212]\d[\d.]*|(?<![\w.])\d*\.\d+")
DENSITY = re.compile(r"likelihood|density|elbo|bits|\bnll", re.IGNORECASE)


class Scale(NamedTuple):
    """A number of an evaluation as an error: smaller is better, and 0 or -1 the best, if any is."""

    name: str
    larger_is_better: bool
    start: float = np.inf  # the error of the first state
    bounded: bool = True  # a density may be as large as it likes
    share: bool = False  # of what there is: 1 is the most

    def error(self, scores: dict[str, float]) -> float:
        """The error, infinite for what is no number."""
        error = self.value(scores.get(self.name, np.nan))
        return error if np.isfinite(error) else np.inf

    def value(self, error: float) -> float:
        """The number of an error."""
        return 0.0 - error if self.larger_is_better else error

    @property
    def best(self) -> float:
        """The least error there is."""
        if not self.bounded:
            return -np.inf
        if not self.larger_is_better:
            return 0.0 if self.start >= 0 else -np.inf
        return -1.0 if self.share or -1 <= self.start <= 0 else -np.inf

    def cures(self, without: float, error: float) -> bool:
        """Whether an error is so much smaller than without an edit that no luck explains it.

        Of an error that ends at 0 half must be gone. Of what ends at 1, as accuracy, half of what
        is missing; or the network has learned twice as much. To be as bad as before the first step
        is no cure, though a run may end worse: a network that is no longer trained would be one.
        """
        clear = bound("clear cure")
        if np.isfinite(self.start) and not self.improves(self.start, error):
            return False
        if self.best == 0:
            far = without > bound("learned by a loop") * self.start
            return (
                far and error <= bound("cured") * without and without - error >= clear * self.start
            )
        if self.best == -1:
            half = 1 + error <= bound("cured") * (1 + without)
            twice = self.start - error >= 2 * max(self.start - without, clear)
            return (half or twice) and without - error >= clear
        progress = max(abs(self.start - without), clear * abs(without))
        return without - error >= progress + clear * abs(self.start)

    def improves(self, without: float, error: float) -> bool:
        """Whether an edit is so much better than none that more steps may make it a cure."""
        least = bound("clear cure") / 4 * (1 if self.best == -1 else abs(self.start))
        return without - error >= least


def direction(text: str) -> bool | None:
    """Whether what a text is about is better when it is larger, None where it does not say."""
    words = words_of(text)
    said = {way for pattern, way in SAID.items() if re.search(pattern, words)}
    if len(said) == 1:
        return said.pop()
    larger, smaller = (
        re.search(rf"\b(?:{pattern})", words) is not None for pattern in (LARGER, SMALLER)
    )
    return larger if larger != smaller else None


def words_of(text: str) -> str:
    """The words of a text or a name, in small letters."""
    return " ".join(re.findall(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+", text)).lower()


def scale_of(evaluate: Callable[..., Any], start: dict[str, float]) -> Scale | None:
    """The first number of an evaluation of which it is known which way is better.

    Args:
        evaluate: the user's function.
        start: its numbers of the first state, by their names.
    """
    named = [(name, name, False) for name in start]
    if len(start) == 1:
        texts = [(text, False) for text in (*told(evaluate), evaluate.__name__)]
        named += [(name, *text) for name in start for text in (*texts, *returned(evaluate))]
    for name, text, turned in named:
        way = direction(text)
        if way is not None:
            bounded = not any(DENSITY.search(text) for _, text, _ in named)
            share = any(SHARE.search(words_of(OTHER.sub(" ", text))) for _, text, _ in named)
            scale = Scale(name, way != turned, bounded=bounded, share=share and way != turned)
            return scale._replace(start=scale.error(start))
    return None


def told(function: Callable[..., Any]) -> Iterator[str]:
    """What is written of a function: which way is better, and the first line but for "Return"."""
    text = inspect.getdoc(function) or ""
    words = words_of(text)
    yield from (match.group() for p in SAID if (match := re.search(p, words)))
    yield re.sub(r"^returns?\b", "", text.partition("\n")[0], flags=re.IGNORECASE)


def returned(function: Callable[..., Any]) -> Iterator[tuple[str, bool]]:
    """The expressions that a function returns, and those that make up the names within them.

    Beside each stands whether it is turned round, as `left` is in `1 - left`.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return
    values = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AugAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    whole = [n.value for n in ast.walk(tree) if isinstance(n, ast.Return) and n.value is not None]
    found = [unwrapped(node) for node in whole]
    found += [
        unwrapped(values[part.id], turned)
        for node, turned in found
        for part in ast.walk(node)
        if isinstance(part, ast.Name) and part.id in values
    ]
    for node, turned in found:
        yield ast.unparse(node), turned
        parts = [*ast.walk(node)]
        if any(isinstance(part, ast.Compare) and isinstance(part.ops[0], ast.Eq) for part in parts):
            yield "accuracy", turned
        powers = [part for part in parts if isinstance(part, ast.BinOp | ast.Call)]
        if any(isinstance(p, ast.BinOp) and isinstance(p.op, ast.Pow) for p in powers) or any(
            isinstance(p, ast.Call) and ast.unparse(p.func).endswith(("abs", "square", "norm"))
            for p in powers
        ):
            yield "error", turned


def unwrapped(node: ast.expr, turned: bool = False) -> tuple[ast.expr, bool]:
    """What an expression measures, without `float(...)` and `1 - ...`, and whether it is turned."""
    match node:
        case ast.Call(func=ast.Name(id="float"), args=[inner]):
            return unwrapped(inner, turned)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return unwrapped(inner, not turned)
        case ast.BinOp(left=ast.Constant(), op=ast.Sub(), right=inner):
            return unwrapped(inner, not turned)
        case ast.BinOp(left=ast.Constant(), op=ast.Mult(), right=inner):
            return unwrapped(inner, turned)
    return node, turned
