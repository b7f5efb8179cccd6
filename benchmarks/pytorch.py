"""The same work in PyTorch, eager, with all tensors in memory, in several variants.

They differ in what decides the speed of a small network in eager mode: modules or plain functions,
which kernel makes the optimizer's step, and how many threads. Losses stay tensors until the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from run import Curves, Work

LOSSES = {
    "sigmoid_cross_entropy": functional.binary_cross_entropy_with_logits,
    "softmax_cross_entropy": functional.cross_entropy,
}
MODULES = {"tanh": nn.Tanh, "relu": nn.ReLU}
ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}
PRIVATE = "private kernel"


def variants(work: Work, cores: int) -> dict[str, Callable[[], Callable[[], Curves]]]:
    """Name -> what prepares a run and gives the function to be timed."""
    always = {
        "PyTorch, modules, 1 thread": partial(modules, work, 1, fused=False),
        "PyTorch, modules, fused optimizer, 1 thread": partial(modules, work, 1, fused=True),
    }
    if work.experiment.model.name != "mlp":  # in their modules nothing but kernels takes time
        fused = partial(modules, work, fused=True)
        always[f"PyTorch, modules, fused optimizer, {cores} threads"] = partial(fused, cores)
        if work.experiment.model.name == "convnet":
            for threads in (1, cores):
                name = f"PyTorch, the same, channels last, {threads} thread{'s' * (threads > 1)}"
                always[name] = partial(fused, threads, memory_format=torch.channels_last)
        return always
    always["PyTorch, functions, fused optimizer, 1 thread"] = partial(functions, work, 1, "optim")
    # Threads that share out four examples lose a hundred times what they gain.
    if work.experiment.batch_size < 32:
        name, how = "PyTorch, functions, written out, 1 thread", (1, "written out")
    else:
        name, how = f"PyTorch, functions, fused optimizer, {cores} threads", (cores, "optim")
    always[name] = partial(functions, work, *how)
    return always | {f"PyTorch, functions, {PRIVATE}, 1 thread": partial(functions, work, 1)}


def modules(
    work: Work,
    threads: int,
    *,
    fused: bool,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Callable[[], Curves]:
    """The usual way: `nn.Module`, `backward`, an optimizer of `torch.optim`."""
    torch.set_num_threads(threads)
    experiment = work.experiment
    model = NETWORKS[experiment.model.name](work).to(memory_format=memory_format)
    its = experiment.optimizer
    common = {"params": model.parameters(), "lr": its.learning_rate, "fused": fused}
    if its.name == "sgd":
        optimizer = torch.optim.SGD(**common, momentum=its.momentum)
    else:
        optimizer = torch.optim.Adam(**common, betas=(its.beta1, its.beta2), eps=its.epsilon)
    loss_of = LOSSES[experiment.loss.name]

    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return partial(train, work, prepared(work), step, lambda x, y: loss_of(model(x), y))


def mlp(work: Work) -> nn.Module:
    """A multilayer perceptron."""
    layers: list[nn.Module] = []
    for weight, bias in tensors(work):
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.load_state_dict({"weight": weight, "bias": bias})
        layers += [linear, MODULES[work.experiment.model.activation.name]()]
    return nn.Sequential(*layers[:-1])


class LanguageModel(nn.Module):
    """Embedding, LSTM and a linear layer; logits (batch, classes, steps), as its loss takes them.

    PyTorch has a second bias, here 0 and left alone, or every step would move the sum twice.
    """

    def __init__(self, work: Work):
        super().__init__()
        params = work.params
        first = {n: torch.tensor(w) for n, w in params["layers"][0]["directions"][0].items()}
        head = {n: torch.tensor(w) for n, w in params["head"].items()}
        channels, units = first["kernel"].shape[0], head["kernel"].shape[0]
        self.embedding = nn.Embedding.from_pretrained(
            torch.tensor(params["embedding"]), freeze=False
        )
        self.lstm = nn.LSTM(channels, units, batch_first=True)
        self.lstm.load_state_dict(
            {
                "weight_ih_l0": first["kernel"].T,
                "weight_hh_l0": first["recurrent_kernel"].T,
                "bias_ih_l0": first["bias"],
                "bias_hh_l0": torch.zeros_like(first["bias"]),
            }
        )
        self.lstm.bias_hh_l0.requires_grad_(False)
        self.head = nn.Linear(units, len(head["bias"]))
        self.head.load_state_dict({"weight": head["kernel"].T, "bias": head["bias"]})

    def forward(self, tokens: Tensor) -> Tensor:
        h, _ = self.lstm(self.embedding(tokens))
        return self.head(h).transpose(1, 2)


class ConvNet(nn.Module):
    """Blocks of convolution and pooling, then dense layers.

    PyTorch has channels in front of rows and columns. Behind the blocks that makes a difference
    to the first dense layer alone, whose inputs come in another order.
    """

    def __init__(self, work: Work):
        super().__init__()
        its = work.experiment.model
        blocks: list[nn.Module] = []
        for block in work.params["blocks"].values():
            kernel, bias = (torch.tensor(block["conv"][name]) for name in ("kernel", "bias"))
            rows, columns, fan_in, width = kernel.shape
            conv = nn.Conv2d(fan_in, width, (rows, columns), padding="same")
            conv.load_state_dict({"weight": kernel.permute(3, 2, 0, 1), "bias": bias})
            blocks += [conv, nn.ReLU(), nn.MaxPool2d(its.pool[0])]
        self.blocks = nn.Sequential(*blocks)
        dense: list[nn.Module] = []
        for layer in work.params["layers"].values():
            layer = layer.get("dense", layer)
            kernel, bias = (torch.tensor(layer[name]) for name in ("kernel", "bias"))
            if not dense:
                side = math.isqrt(len(kernel) // width)
                kernel = kernel.view(side, side, width, -1).permute(2, 0, 1, 3).flatten(0, 2)
            linear = nn.Linear(*kernel.shape)
            linear.load_state_dict({"weight": kernel.T, "bias": bias})
            dense += [linear, nn.ReLU()]
        self.dense = nn.Sequential(*dense[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.blocks(x.permute(0, 3, 1, 2)).flatten(1))


NETWORKS = {"mlp": mlp, "recurrent": LanguageModel, "convnet": ConvNet}


def functions(work: Work, threads: int, update: str = PRIVATE) -> Callable[[], Curves]:
    """Nothing but what the step needs: no modules, no hooks.

    The update is that of the fused optimizers of `torch.optim`; or SGD's written out; or made by
    the kernel beneath those optimizers, called directly, which PyTorch does not offer to its users.
    """
    torch.set_num_threads(threads)
    parameters = [tensor.requires_grad_() for pair in tensors(work) for tensor in pair]
    pairs = list(zip(parameters[::2], parameters[1::2], strict=True))
    first = [torch.zeros_like(p) for p in parameters]
    second = [torch.zeros_like(p) for p in parameters]
    steps = [torch.zeros(()) for _ in parameters]
    experiment = work.experiment
    its = experiment.optimizer
    activation = ACTIVATIONS[experiment.model.activation.name]
    loss_of = LOSSES[experiment.loss.name]

    def outputs(x: Tensor) -> Tensor:
        for weight, bias in pairs[:-1]:
            x = activation(functional.linear(x, weight, bias))
        return functional.linear(x, *pairs[-1])

    def sgd(gradients: tuple[Tensor, ...]) -> None:
        for p, m, g in zip(parameters, first, gradients, strict=True):
            m.mul_(its.momentum).add_(g)
            p.sub_(m, alpha=its.learning_rate)

    def fused_sgd(gradients: tuple[Tensor, ...]) -> None:
        torch._fused_sgd_(
            parameters,
            gradients,
            first,
            weight_decay=0.0,
            momentum=its.momentum,
            lr=its.learning_rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )

    def fused_adam(gradients: tuple[Tensor, ...]) -> None:
        torch._foreach_add_(steps, 1)
        torch._fused_adam_(
            parameters,
            gradients,
            first,
            second,
            [],
            steps,
            lr=its.learning_rate,
            beta1=its.beta1,
            beta2=its.beta2,
            weight_decay=0.0,
            eps=its.epsilon,
            amsgrad=False,
            maximize=False,
        )

    if its.name == "sgd":
        rate = {"lr": its.learning_rate, "momentum": its.momentum}
        optimizer = torch.optim.SGD(parameters, fused=True, **rate)
    else:
        rate = {"lr": its.learning_rate, "betas": (its.beta1, its.beta2), "eps": its.epsilon}
        optimizer = torch.optim.Adam(parameters, fused=True, **rate)

    def optim(gradients: tuple[Tensor, ...]) -> None:
        for p, g in zip(parameters, gradients, strict=True):
            p.grad = g
        optimizer.step()

    kernels = {"sgd": fused_sgd, "adam": fused_adam}
    updates = {"optim": optim, "written out": sgd, PRIVATE: kernels[its.name]}

    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = loss_of(outputs(x), y)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            updates[update](gradients)
        return loss.detach()

    return partial(train, work, prepared(work), step, lambda x, y: loss_of(outputs(x), y))


def tensors(work: Work) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of every layer: PyTorch keeps a weight as (fan_out, fan_in)."""
    return [
        (torch.tensor(kernel).T.contiguous(), torch.tensor(bias)) for kernel, bias in work.weights
    ]


def prepared(work: Work) -> tuple[Tensor, ...]:
    """Training data, validation data and the order of every epoch."""
    x, y, valid_x, valid_y = map(torch.tensor, (*work.task.train, *work.task.valid))
    if work.experiment.loss.name == "softmax_cross_entropy":
        y, valid_y = y.long(), valid_y.long()
    return x, y, valid_x, valid_y, torch.tensor(work.orders)


def train(
    work: Work,
    data: tuple[Tensor, ...],
    step: Callable[[Tensor, Tensor], Tensor],
    loss_of: Callable[[Tensor, Tensor], Tensor],
) -> Curves:
    """All epochs, with a validation after each."""
    x, y, valid_x, valid_y, orders = data
    size = work.experiment.batch_size
    sizes = torch.tensor([len(batch) for batch in x.split(size)], dtype=torch.float32)
    train_losses, valid_losses = [], []
    for order in orders:
        if size < len(x):
            batches = zip(x[order].split(size), y[order].split(size), strict=True)
            losses = torch.stack([step(*batch) for batch in batches])
            train_losses.append(losses.dot(sizes) / len(x))
        else:
            train_losses.append(step(x, y))
        with torch.inference_mode():
            valid_losses.append(loss_of(valid_x, valid_y))
    return torch.stack(train_losses).numpy(), torch.stack(valid_losses).numpy()
