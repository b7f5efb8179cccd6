"""Studies: an experiment run and resumed, and many of them swept, compared, sampled.

Whoever imports them is going to train, so that XLA's options are set here, once, before JAX starts.
"""

from nnref.training.compilation import compile_tiny_loops_whole

compile_tiny_loops_whole()
