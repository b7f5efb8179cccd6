"""A character n-gram model with backoff: what a language model without a network reaches."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence


class NGram:
    """Interpolated Witten-Bell smoothing (Witten and Bell 1991; Chen and Goodman 1998, 2.5).

    P(c | h) = (N(h c) + T(h) P(c | h')) / (N(h) + T(h)) with N(h c) how often c followed the last
    n - 1 characters h in training, N(h) the sum over c, T(h) how many different c followed, and h'
    without its first character; below the single character stands 1/K for each of K. A context
    that was never seen leaves everything to the shorter one.
    """

    def __init__(self, order: int, vocabulary: int):
        self.order, self.vocabulary = order, vocabulary
        self.followers: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        self.seen: Counter[tuple[int, ...]] = Counter()

    def learn(self, tokens: Sequence[int]) -> "NGram":
        for place, token in enumerate(tokens):
            for length in range(min(self.order - 1, place) + 1):
                context = tuple(tokens[place - length : place])
                self.followers[context][token] += 1
                self.seen[context] += 1
        return self

    def probability(self, context: tuple[int, ...], token: int) -> float:
        p = 1 / self.vocabulary
        for length in range(min(self.order - 1, len(context)) + 1):
            h = context[len(context) - length :]
            followers = self.followers.get(h)
            if followers is None:
                return p
            different = len(followers)
            p = (followers[token] + different * p) / (self.seen[h] + different)
        return p

    def bits_per_character(self, tokens: Sequence[int]) -> float:
        """The mean over all tokens but the first, each with what stands before it as context."""
        bits = 0.0
        for place in range(1, len(tokens)):
            context = tuple(tokens[max(0, place - self.order + 1) : place])
            bits -= math.log2(self.probability(context, tokens[place]))
        return bits / (len(tokens) - 1)
