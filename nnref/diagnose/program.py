"""Checks of the traced program: what the operations of a network and its loss do, never names."""

from nnref.diagnose.layers import Layer, activations, layers

__all__ = ["Layer", "activations", "layers"]
