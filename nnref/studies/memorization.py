"""Memorization: how much of a text stands verbatim in another one.

A low loss does not tell a model that has learned a language from one that has learned its training
text by heart. What it writes, tells: held beside passages of the same length from held-out text,
whose phrases are only as common as phrases are.

Texts are arrays of tokens here. The method is the suffix array by doubling (Manber and Myers 1990):
all suffixes of all texts are ranked by their first 1, 2, 4, ... tokens, n log n work for each
doubling. The longest match of a passage at some place is then with a neighbour in that order, and
the same ranks tell how long it is. No step is quadratic in any of the lengths.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RUN = 30  # tokens from which on a verbatim run is counted


class Verbatim(NamedTuple):
    """What of a passage stands verbatim in a text."""

    start: int  # of the longest such run in the passage
    longest: int  # its length
    share: float  # of the passage that lies in runs of `RUN` or more


def verbatim(passages: Sequence[np.ndarray], text: np.ndarray, run: int = RUN) -> list[Verbatim]:
    """For each passage its longest run that stands in a text, and its share in long runs.

    Args:
        passages: tokens, (length,), none empty.
        text: tokens, (length,).
        run: length from which on a run counts for the share.
    """
    found = []
    for lengths in longest_matches(passages, text):
        covered = np.zeros(len(lengths) + 1, int)
        for start in np.flatnonzero(lengths >= run):
            covered[start] += 1
            covered[start + lengths[start]] -= 1
        start = int(lengths.argmax())
        share = float((np.cumsum(covered)[:-1] > 0).mean())
        found.append(Verbatim(start, int(lengths[start]), share))
    return found


def longest_matches(passages: Sequence[np.ndarray], text: np.ndarray) -> list[np.ndarray]:
    """For each place of each passage, how much of what follows there stands verbatim in a text.

    Args:
        passages: tokens, each (length,).
        text: tokens, (length,).

    Returns:
        Lengths, one array of integers for each passage: entry i is the largest L with
        `passage[i : i + L]` somewhere in the text.
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
    for neighbour, found in ((before, before >= 0), (behind, behind < len(order))):
        asked = found & ~of_text
        one, other = order[asked], order[neighbour[asked]]
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
