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
from nnref.studies.memorization import RUN, Verbatim, verbatim
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
    for name, given, least in allowed:
        if not least <= given < float("inf"):
            raise UserError(f"{name}: {given} given; allowed is a finite number from {least} up")
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
    """The functions of the same network for some texts that are written side by side.

    Raises:
        UserError: for a run that is no language model.
    """
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
    """The state before the first token: what is carried begins anew, all else as it was trained."""
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

    One scan: each step reads a token, of the prompt while there is one and else the one drawn last,
    and the model's state goes on.
    """
    texts, steps = prompt.shape
    nothing = jnp.full((length - 1, texts), -1, prompt.dtype)
    given = jnp.concatenate([prompt.T, nothing])

    def step(carry: tuple[Tree, Array], now: tuple[Array, Array]) -> tuple[Any, Array]:
        model_state, drawn = carry
        given, number = now
        token = jnp.where(given < 0, drawn, given)
        outputs, model_state = apply(params, model_state, token[:, None], None, False)
        drawn = draw(outputs[:, 0], temperature, jax.random.fold_in(key, number))
        return (model_state, drawn), drawn

    numbers = jnp.arange(len(given))
    _, drawn = jax.lax.scan(step, (model_state, prompt[:, 0]), (given, numbers))
    return drawn[steps - 1 :].T


def draw(logits: Array, temperature: Array, key: Array) -> Array:
    """A class for each row of logits, p proportional to exp(logit / T); the largest for T = 0."""
    largest = jnp.argmax(logits, axis=-1)
    divisor = jnp.where(temperature > 0, temperature, 1)
    drawn = jax.random.categorical(key, logits / divisor)
    return jnp.where(temperature > 0, drawn, largest).astype(jnp.int32)


# --- what was learned by heart ------------------------------------------------------------------


class Memory(NamedTuple):
    """How much stands verbatim in the training text: of samples, and of held-out text."""

    samples: list[Verbatim]
    passages: list[str]  # the longest of each sample
    held_out: list[Verbatim]  # of all passages of a sample's length, one after another

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        ours = [
            {"longest": one.longest, "passage": passage, "share": one.share}
            for one, passage in zip(self.samples, self.passages, strict=True)
        ]
        return {"run": RUN, "samples": ours, "held_out": self.held_out_figures()}

    def held_out_figures(self) -> dict[str, float]:
        """What is usual for text that was not learned from."""
        longest = [one.longest for one in self.held_out]
        return {
            "passages": len(longest),
            "longest_median": float(np.median(longest)),
            "longest_most": max(longest),
            "share_mean": float(np.mean([one.share for one in self.held_out])),
        }

    def in_words(self) -> list[str]:
        """A line for each sample, and one for held-out text."""
        told = [f"verbatim in the training text: longest run, share in runs of {RUN} up"]
        for number, (one, passage) in enumerate(zip(self.samples, self.passages, strict=True), 1):
            told.append(f"sample {number:<6} {one.longest:4}  {one.share:4.0%}  {passage!r}")
        usual = self.held_out_figures()
        told.append(
            f"held-out text {usual['longest_median']:3.0f}  {usual['share_mean']:4.0%}  median and "
            f"mean of {usual['passages']} passages as long; the longest run of all is "
            f"{usual['longest_most']}"
        )
        return told


def check(dataset: Dataset, samples: Sequence[np.ndarray]) -> Memory:
    """Look for samples in the training text, and beside them for held-out text of their length.

    Args:
        dataset: that was trained on.
        samples: tokens, all of one length.

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
    found = verbatim([*samples, *passages], tokens_of(dataset, "train"))
    ours = found[: len(samples)]
    longest = [
        spell(dataset, tokens[one.start : one.start + one.longest])
        for tokens, one in zip(samples, ours, strict=True)
    ]
    return Memory(ours, longest, found[len(samples) :])
