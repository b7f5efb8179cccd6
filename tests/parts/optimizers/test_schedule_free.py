"""Schedule-free optimizers: where they are evaluated."""

import numpy as np
from trajectories import STEPS, trajectory


def test_schedule_free_is_evaluated_at_the_average_of_z():
    """With a constant rate x is the plain mean of all z, and y lies between the two."""
    y, x = trajectory("schedule_free_sgd", learning_rate=0.2, interpolation=0.8)
    z = (y - 0.8 * x) / 0.2
    means = np.cumsum(z, axis=0) / np.arange(1, STEPS + 1)[:, None]
    np.testing.assert_allclose(x, means, rtol=0, atol=1e-12)
