"""Sampling: text written by a trained language model, and how much of it was learned by heart."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.data.prepare import Dataset
from nnref.data.text import read, spell, tokens_of
from nnref.errors import UserError
from nnref.studies.run import Trained
from nnref.training.task import Functions

Array = jax.Array
Tree = Any


def sample(
    trained: Trained,
    *,
    length: int,
    temperature: float = 1.0,
    prompt: str = "\n",
    seed: int = 0,
    samples: int = 1,
) -> np.ndarray:
    """Texts that a language model writes behind a prompt.

    Args:
        trained: the network of a page.
        length: tokens of each text.
        temperature: T in p(token) proportional to exp(logit / T): 1 as learned, towards 0 only the
            likeliest token, which 0 itself takes always.
        prompt: what stands before, read first and not part of the texts.
        seed: of the draws.
        samples: number of texts, all from the same prompt.

    Returns:
        Tokens, (samples, length).

    Raises:
        UserError: for a run that is no language model, numbers out of range, or a prompt that is
            empty or has characters that the model never met.
    """
    allowed = (("length", length, 1), ("temperature", temperature, 0), ("samples", samples, 1))
    for name, value, least in allowed:
        if not least <= value < float("inf"):
            raise UserError(f"{name}: {value} given; allowed is a finite number from {least} up")
    functions = functions_for(trained, samples)
    if not prompt:
        raise UserError("prompt: it is empty; the model needs something to begin with")
    tokens = np.tile(read(trained.dataset, prompt), (samples, 1))
    model_state = fresh_state(functions, trained.params, trained.model_state)
    key = jax.random.key(seed)
    written = jax.jit(generate, static_argnames=("apply", "length"))
    return np.asarray(
        written(functions.apply, trained.params, model_state, tokens, length, temperature, key)
    )


def functions_for(trained: Trained, samples: int) -> Functions:
    """The functions of the network for texts side by side; only a language model has any."""
    experiment = trained.experiment
    like = "a sample comes from a language model, like that of experiments/text_lstm.json"
    if trained.dataset.unit is None:
        raise UserError(f"{trained.page.path}: {experiment.data.name} is no text; {like}")
    if "streams" not in type(experiment.model).model_fields:
        raise UserError(
            f"{trained.page.path}: {experiment.model.name} does not read step by step; {like}"
        )
    experiment = experiment.replaced({"model.streams": samples})
    setup = replace(trained.setup, experiment=experiment, structure=experiment.structure)
    return setup.functions(experiment.hyperparameters)


def fresh_state(functions: Functions, params: Tree, model_state: Tree) -> Tree:
    """The state before the first token: the carried state of a restart, the rest as trained."""
    _, state = functions.init(jax.random.key(0))
    known = dict(jax.tree.leaves_with_path(model_state))

    def kept(path: Any, leaf: Array) -> Array:
        return known[path] if path in known and known[path].shape == leaf.shape else leaf

    assert functions.restart is not None, "a model with streams goes on from call to call"
    return functions.restart(params, jax.tree.map_with_path(kept, state))


def generate(
    apply: Callable[[Tree, Tree, Array, Array | None, bool], tuple[Array, Tree]],
    params: Tree,
    model_state: Tree,
    prompt: Array,
    length: int,
    temperature: Array,
    key: Array,
) -> Array:
    """Tokens (texts, length) behind a prompt (texts, steps), drawn one after another.

    One scan carries the model's state: each step reads a token, that of the prompt while it lasts,
    then the one drawn last.
    """
    texts, steps = prompt.shape
    nothing = jnp.full((length - 1, texts), -1, prompt.dtype)
    tokens = jnp.concatenate([prompt.T, nothing])

    def step(carry: tuple[Tree, Array], now: tuple[Array, Array]) -> tuple[Any, Array]:
        model_state, drawn = carry
        prompted, number = now
        token = jnp.where(prompted < 0, drawn, prompted)
        outputs, model_state = apply(params, model_state, token[:, None], None, False)
        drawn = draw(outputs[:, 0], temperature, jax.random.fold_in(key, number))
        return (model_state, drawn), drawn

    numbers = jnp.arange(len(tokens))
    _, drawn = jax.lax.scan(step, (model_state, prompt[:, 0]), (tokens, numbers))
    return drawn[steps - 1 :].T


def draw(logits: Array, temperature: Array, key: Array) -> Array:
    """A class for each row of logits, p proportional to exp(logit / T); the largest for T = 0."""
    largest = jnp.argmax(logits, axis=-1)
    divisor = jnp.where(temperature > 0, temperature, 1)
    drawn = jax.random.categorical(key, logits / divisor)
    return jnp.where(temperature > 0, drawn, largest).astype(jnp.int32)


# --- how much of a text stands verbatim in another one ------------------------------------------
#
# A low loss does not tell a model that has learned a language from one that has learned its
# training text by heart. The texts that it writes do: they are compared with passages of the same
# length from held-out text, whose phrases are only as common as phrases are.
#
# The method is the suffix array by doubling (Manber and Myers 1990): all suffixes of all texts are
# ranked by their first 1, 2, 4, ... tokens, n log n work for each doubling. The longest match of a
# passage at some place is then with a neighbour in that order, and the same ranks tell how long it
# is. No step is quadratic in any of the lengths.

RUN = 30  # tokens from which on a verbatim run is counted


class Verbatim(NamedTuple):
    """How much of a passage stands verbatim in a text."""

    start: int  # of the longest such run in the passage
    longest: int  # length of that run
    share: float  # share of the passage that lies in runs of `RUN` tokens or more


def verbatim(passages: Sequence[np.ndarray], text: np.ndarray, run: int = RUN) -> list[Verbatim]:
    """For each passage its longest run that stands in a text, and its share in long runs.

    Passages and text are tokens, (length,), none empty; from length `run` on a run counts as long.
    """
    matches = []
    for lengths in longest_matches(passages, text):
        covered = np.zeros(len(lengths) + 1, int)
        for start in np.flatnonzero(lengths >= run):
            covered[start] += 1
            covered[start + lengths[start]] -= 1
        start = int(lengths.argmax())
        share = float((np.cumsum(covered)[:-1] > 0).mean())
        matches.append(Verbatim(start, int(lengths[start]), share))
    return matches


def longest_matches(passages: Sequence[np.ndarray], text: np.ndarray) -> list[np.ndarray]:
    """For each place of each passage, how much of what follows there stands verbatim in a text.

    Entry i of the lengths of a passage is the largest L with `passage[i : i + L]` in the text.
    """
    # Each text ends with a token of its own, so that no match passes beyond.
    texts = [text, *passages]
    ended = [np.append(tokens.astype(np.int64), -1 - place) for place, tokens in enumerate(texts)]
    ranks = ranks_by_doubling(np.concatenate(ended), max(map(len, passages)))
    order = np.argsort(ranks[-1], kind="stable")
    of_text = order < len(text)
    # The nearest suffix of the text before and behind each one in the order; none is -1.
    place = np.where(of_text, np.arange(len(order)), -1)
    before = np.maximum.accumulate(place)
    behind = np.minimum.accumulate(np.where(of_text, place, len(order))[::-1])[::-1]
    lengths = np.zeros(len(order), int)
    for neighbour, exists in ((before, before >= 0), (behind, behind < len(order))):
        compared = exists & ~of_text
        one, other = order[compared], order[neighbour[compared]]
        lengths[one] = np.maximum(lengths[one], common_prefix(ranks, one, other))
    ends = np.cumsum([len(tokens) for tokens in ended])
    return [part[:-1] for part in np.split(lengths, ends[:-1])[1:]]


def ranks_by_doubling(tokens: np.ndarray, longest: int) -> list[np.ndarray]:
    """Ranks of all suffixes by their first 1, 2, 4, ... tokens, until that is more than `longest`.

    Suffixes have the same rank where these tokens are the same.
    """
    ranks = [np.unique(tokens, return_inverse=True)[1]]
    while (length := 2 ** (len(ranks) - 1)) <= longest:
        first = ranks[-1]
        then = np.zeros_like(first)  # beyond the end is smaller than any token
        then[:-length] = first[length:] + 1
        ranks.append(np.unique(first * (len(tokens) + 1) + then, return_inverse=True)[1])
    return ranks


def common_prefix(ranks: list[np.ndarray], one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How many tokens pairs of suffixes have in common from their start.

    Powers of two from the largest down: where that many tokens are the same, go on behind them.
    """
    length = np.zeros(len(one), int)
    for power in reversed(range(len(ranks))):
        same = ranks[power][one + length] == ranks[power][other + length]
        length += same * 2**power
    return length


class Memory(NamedTuple):
    """How much stands verbatim in the training text: of samples, and of held-out text."""

    samples: list[Verbatim]
    passages: list[str]  # the longest of each sample
    held_out: list[Verbatim]  # of all passages of a sample's length, one after another

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        samples = [
            {"longest": one.longest, "passage": passage, "share": one.share}
            for one, passage in zip(self.samples, self.passages, strict=True)
        ]
        return {"run": RUN, "samples": samples, "held_out": self.held_out_figures()}

    def held_out_figures(self) -> dict[str, float]:
        """The same figures of held-out text, which the model has not learned from."""
        longest = [one.longest for one in self.held_out]
        return {
            "passages": len(longest),
            "longest_median": float(np.median(longest)),
            "longest_most": max(longest),
            "share_mean": float(np.mean([one.share for one in self.held_out])),
        }

    def in_words(self) -> list[str]:
        """A line for each sample, and one for held-out text."""
        lines = [f"verbatim in the training text: longest run, share in runs of {RUN} up"]
        for number, (one, passage) in enumerate(zip(self.samples, self.passages, strict=True), 1):
            lines.append(f"sample {number:<6} {one.longest:4}  {one.share:4.0%}  {passage!r}")
        usual = self.held_out_figures()
        lines.append(
            f"held-out text {usual['longest_median']:3.0f}  {usual['share_mean']:4.0%}  median and "
            f"mean of {usual['passages']} passages as long; the longest run of all is "
            f"{usual['longest_most']}"
        )
        return lines


def check(dataset: Dataset, samples: Sequence[np.ndarray]) -> Memory:
    """Look for samples in the training text, and beside them for held-out text of their length.

    The samples are tokens, all of one length; the model was trained on the data set.

    Raises:
        UserError: where nothing was held out, or less than the length of a sample.
    """
    held_out = [tokens_of(dataset, name) for name in dataset.splits if name != "train"]
    length = len(samples[0])
    passages = [
        text[start : start + length]
        for text in held_out
        for start in range(0, len(text) - length + 1, length)
    ]
    if not passages:
        raise UserError(
            f"check: {max(map(len, held_out), default=0)} steps of text were held out, a sample "
            f"has {length}; give data.valid a share, or write shorter samples"
        )
    matches = verbatim([*samples, *passages], tokens_of(dataset, "train"))
    of_samples = matches[: len(samples)]
    longest = [
        spell(dataset, tokens[one.start : one.start + one.longest])
        for tokens, one in zip(samples, of_samples, strict=True)
    ]
    return Memory(of_samples, longest, matches[len(samples) :])
