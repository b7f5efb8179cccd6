"""Makes recurrent.json: outputs and gradients of recurrent networks by PyTorch, in float64.

Run it where torch is installed: `python tests/parts/oracles/recurrent.py`.
"""

import json
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

UNITS, CHANNELS, OUTPUTS, BATCH, STEPS, LAYERS = 3, 2, 2, 3, 5, 2
LENGTHS = [5, 1, 3]  # of the sequences; what lies behind is padding
TOKENS = 4
CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def drawn(module):
    """The module with weights of three decimals, so that the file is short and they are exact."""
    for parameter in module.parameters():
        with torch.no_grad():
            parameter.copy_(torch.round(torch.randn_like(parameter), decimals=3))
    return module


def told(*modules):
    """Weights, and their gradients, by PyTorch's names."""
    named = [pair for module in modules for pair in module.named_parameters()]
    return {
        "weights": {name: p.tolist() for name, p in named},
        "gradients": {name: p.grad.tolist() for name, p in named},
    }


def sequences_to_labels(cell):
    """Two layers in both directions on padded sequences; the answers are weighed and added up."""
    network = drawn(CELLS[cell](CHANNELS, UNITS, LAYERS, batch_first=True, bidirectional=True))
    head = drawn(nn.Linear(2 * UNITS, OUTPUTS))
    x = torch.round(torch.randn(BATCH, STEPS, CHANNELS), decimals=3).requires_grad_()
    weigh = torch.round(torch.randn(BATCH, OUTPUTS), decimals=3)
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    _, state = network(packed)
    h = state[0] if cell == "lstm" else state
    outputs = head(torch.cat([h[-2], h[-1]], dim=-1))
    (outputs * weigh).sum().backward()
    return {
        "cell": cell,
        "x": x.tolist(),
        "lengths": LENGTHS,
        "weigh": weigh.tolist(),
        "outputs": outputs.tolist(),
        "gradient_of_x": x.grad.tolist(),
        **told(network, head),
    }


def language_model(cell):
    """One layer that reads tokens from a given state, and tells the next one, tied."""
    network = drawn(CELLS[cell](UNITS, UNITS, batch_first=True))
    embedding = drawn(nn.Embedding(TOKENS, UNITS))
    bias = nn.Parameter(torch.round(torch.randn(TOKENS), decimals=3))
    tokens = torch.randint(TOKENS, (BATCH, STEPS + 1))
    states = [torch.round(torch.randn(1, BATCH, UNITS), decimals=3) for _ in range(2)]
    before = tuple(states) if cell == "lstm" else states[0]
    h, after = network(embedding(tokens[:, :-1]), before)
    logits = nn.functional.linear(h, embedding.weight, bias)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    kept = states if cell == "lstm" else states[:1]
    after = after if cell == "lstm" else (after,)
    case = told(network, embedding)
    case["weights"] |= {"embedding": case["weights"].pop("weight"), "bias": bias.tolist()}
    gradients = case["gradients"]
    gradients |= {"embedding": gradients.pop("weight"), "bias": bias.grad.tolist()}
    return {
        "cell": cell,
        "tokens": tokens.tolist(),
        "before": [part[0].tolist() for part in kept],
        "after": [part[0].tolist() for part in after],
        "logits": logits.tolist(),
        "loss": loss.item(),
        **case,
    }


def main() -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    content = {
        "made_by": f"torch {torch.__version__}",
        "labels": [sequences_to_labels(cell) for cell in CELLS],
        "language": [language_model(cell) for cell in CELLS],
    }
    text = json.dumps(content).replace('{"cell"', '\n{"cell"') + "\n"
    Path(__file__).with_suffix(".json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
