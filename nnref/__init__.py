"""nnref: a small reference trainer in JAX, and a diagnosis of networks that do not learn."""

__version__ = "0.1.0"
