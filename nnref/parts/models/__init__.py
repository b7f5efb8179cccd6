"""Models: one `flax.nnx` module a file.

A model is built as `Model(inputs, outputs, rngs, regularization, **arguments)`: `inputs` is the
shape of one example, `outputs` the width of its answer. Keyword-only arguments are the schema of
the experiment file.
"""

from nnref.parts.models.convnet import ConvNet
from nnref.parts.models.mlp import MLP, Linear
from nnref.parts.models.recurrent import Recurrent
from nnref.parts.models.resnet import ResNet

MODELS = {
    "linear": Linear,
    "mlp": MLP,
    "convnet": ConvNet,
    "resnet": ResNet,
    "recurrent": Recurrent,
}
