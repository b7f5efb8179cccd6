"""The problem on which optimizers of several libraries are compared, in plain Python.

A quadratic whose gradient carries noise: it changes sign, and now and then a single number spikes
to thirty times its size. One number has no gradient at all for the first 20 steps. Everything is
drawn with random.random, whose sequence Python keeps the same in all versions.
"""

import random

SHAPES = {"bias": (4,), "kernel": (3, 4), "tall": (5, 2)}
SIZE = 4 + 12 + 10
STEPS = 200
RECORDED = (1, 2, 3, 10, 50, 100, 150, 200)  # after these steps

_draw = random.Random(20).random
START = [2 * _draw() - 1 for _ in range(SIZE)]
CENTRE = [2 * _draw() - 1 for _ in range(SIZE)]
CURVATURE = [0.05 * 40 ** _draw() for _ in range(SIZE)]
NOISE = [
    [(2 * _draw() - 1) * (30 if _draw() < 0.02 else 1) for _ in range(SIZE)] for _ in range(STEPS)
]
SILENT = 5, 20  # this number has no gradient in the steps up to this one


def gradient(t, theta):
    """The gradient at step t, from 1, of a flat list of numbers, as a list."""
    g = [a * (w - c) + n for a, w, c, n in zip(CURVATURE, theta, CENTRE, NOISE[t - 1], strict=True)]
    if t <= SILENT[1]:
        g[SILENT[0]] = 0.0
    return g
