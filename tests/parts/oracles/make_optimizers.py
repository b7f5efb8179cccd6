"""Makes the trajectories of PyTorch, Keras and optax that nnref's optimizers are held against.

Run it where torch, keras, optax and schedulefree are installed (not a dependency of nnref):

    KERAS_BACKEND=torch python tests/parts/oracles/make_optimizers.py

It writes optimizers_<library>.json beside itself: for each run the member of nnref and its
arguments, and the parameters after the recorded steps, all in float64.
"""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import jax
import keras
import numpy as np
import optax
import schedulefree
import torch
from noisy_quadratic import RECORDED, SHAPES, SIZE, START, STEPS, gradient

HERE = Path(__file__).parent
KERNELS = ("kernel", "tall")


def split(flat):
    """A flat list of numbers as named arrays."""
    sizes = [int(np.prod(shape)) for shape in SHAPES.values()]
    parts = np.split(np.asarray(flat, np.float64), np.cumsum(sizes)[:-1])
    return {name: part.reshape(SHAPES[name]) for name, part in zip(SHAPES, parts, strict=True)}


def flat(arrays):
    """Named arrays as a flat list of numbers."""
    return np.concatenate([np.ravel(arrays[name]) for name in SHAPES]).tolist()


def follow(step, read):
    """The parameters after the recorded steps of `step(gradients)`, as `read()` gives them."""
    recorded = []
    for t in range(1, STEPS + 1):
        step(split(gradient(t, flat(read()))))
        if t in RECORDED:
            recorded.append(flat(read()))
    assert len(recorded[0]) == SIZE
    return recorded


# --- PyTorch --------------------------------------------------------------------------------------


def torch_run(make, zero_step_first=False):
    """Where `make(kernels, biases)` gives an optimizer. Kernels are (in, out), as in JAX."""
    params = {n: torch.nn.Parameter(torch.tensor(w)) for n, w in split(START).items()}
    optimizer = make([params[n] for n in KERNELS], [params["bias"]])

    def step(gradients):
        for name, g in gradients.items():
            params[name].grad = torch.tensor(g)
        optimizer.step()

    def read():
        return {n: p.detach().numpy().copy() for n, p in params.items()}

    if zero_step_first:  # PyTorch leaves the first gradient undamped: let that one be 0
        step({n: np.zeros(shape) for n, shape in SHAPES.items()})
    if not hasattr(optimizer, "train"):
        return {"trajectory": follow(step, read)}
    optimizer.train()
    trajectory = follow(step, read)
    optimizer.eval()
    return {"trajectory": trajectory, "average": flat(read())}


def torch_muon(nesterov):
    """PyTorch's Muon takes (out, in) matrices and computes in bfloat16; both are undone here."""
    params = {n: torch.nn.Parameter(torch.tensor(w)) for n, w in split(START).items()}
    turned = {n: torch.nn.Parameter(params[n].detach().T.clone()) for n in KERNELS}
    muon = torch.optim.Muon(
        list(turned.values()), lr=0.02, weight_decay=0.0, momentum=0.95, nesterov=nesterov
    )
    adam = torch.optim.Adam([params["bias"]], lr=3e-4, betas=(0.9, 0.95), eps=1e-10)

    def step(gradients):
        for name in KERNELS:
            turned[name].grad = torch.tensor(gradients[name].T.copy())
        params["bias"].grad = torch.tensor(gradients["bias"])
        rounding, torch.Tensor.bfloat16 = torch.Tensor.bfloat16, lambda self: self.clone()
        try:
            muon.step()
        finally:
            torch.Tensor.bfloat16 = rounding
        adam.step()

    def read():
        kernels = {n: w.detach().numpy().T.copy() for n, w in turned.items()}
        return kernels | {"bias": params["bias"].detach().numpy().copy()}

    return {"trajectory": follow(step, read)}


def decayed(kind, weight_decay, **arguments):
    """An optimizer that decays kernels, not biases."""

    def make(kernels, biases):
        groups = [
            {"params": kernels, "weight_decay": weight_decay},
            {"params": biases, "weight_decay": 0.0},
        ]
        return kind(groups, **arguments)

    return make


def everything(kind, **arguments):
    return lambda kernels, biases: kind([*kernels, *biases], **arguments)


o = torch.optim
TORCH = [
    ("sgd", {"learning_rate": 0.05}, lambda: torch_run(everything(o.SGD, lr=0.05))),
    (
        "sgd",
        {"learning_rate": 0.05, "momentum": 0.9},
        lambda: torch_run(everything(o.SGD, lr=0.05, momentum=0.9)),
    ),
    (
        "sgd",
        {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True},
        lambda: torch_run(everything(o.SGD, lr=0.05, momentum=0.9, nesterov=True)),
    ),
    (
        "sgd",
        {"learning_rate": 0.05, "momentum": 0.9, "dampening": 0.4},
        lambda: torch_run(
            everything(o.SGD, lr=0.05, momentum=0.9, dampening=0.4), zero_step_first=True
        ),
    ),
    ("adagrad", {"learning_rate": 0.1}, lambda: torch_run(everything(o.Adagrad, lr=0.1))),
    (
        "rmsprop",
        {"learning_rate": 0.01},
        lambda: torch_run(everything(o.RMSprop, lr=0.01, alpha=0.9)),
    ),
    (
        "rmsprop",
        {"learning_rate": 0.01, "centred": True},
        lambda: torch_run(everything(o.RMSprop, lr=0.01, alpha=0.9, centered=True)),
    ),
    (
        "rmsprop",
        {"learning_rate": 0.01, "centred": True, "momentum": 0.8},
        lambda: torch_run(everything(o.RMSprop, lr=0.01, alpha=0.9, centered=True, momentum=0.8)),
    ),
    ("adadelta", {}, lambda: torch_run(everything(o.Adadelta, lr=1.0, rho=0.95, eps=1e-6))),
    ("adam", {"learning_rate": 0.01}, lambda: torch_run(everything(o.Adam, lr=0.01))),
    (
        "adamw",
        {"learning_rate": 0.01, "weight_decay": 0.3},
        lambda: torch_run(decayed(o.AdamW, 0.3, lr=0.01)),
    ),
    ("adamax", {"learning_rate": 0.02}, lambda: torch_run(everything(o.Adamax, lr=0.02))),
    (
        "nadam",
        {"learning_rate": 0.01},
        lambda: torch_run(everything(o.NAdam, lr=0.01, momentum_decay=1e9)),
    ),
    (
        "nadam",
        {"learning_rate": 0.01, "momentum_decay": 0.004},
        lambda: torch_run(everything(o.NAdam, lr=0.01, momentum_decay=0.004)),
    ),
    ("radam", {"learning_rate": 0.01}, lambda: torch_run(everything(o.RAdam, lr=0.01))),
    (
        "radam",
        {"learning_rate": 0.01, "epsilon": 1e-30},
        lambda: torch_run(everything(o.RAdam, lr=0.01, eps=1e-30)),
    ),
    (
        "amsgrad",
        {"convention": "torch", "learning_rate": 0.01},
        lambda: torch_run(everything(o.Adam, lr=0.01, amsgrad=True)),
    ),
    ("muon", {"nesterov": True}, lambda: torch_muon(nesterov=True)),
    ("muon", {"nesterov": False}, lambda: torch_muon(nesterov=False)),
    (
        "schedule_free_sgd",
        {"learning_rate": 0.3},
        lambda: torch_run(everything(schedulefree.SGDScheduleFree, lr=0.3, momentum=0.9)),
    ),
    (
        "schedule_free_adamw",
        {"learning_rate": 0.02, "weight_decay": 0.3, "warmup_steps": 40},
        lambda: torch_run(decayed(schedulefree.AdamWScheduleFree, 0.3, lr=0.02, warmup_steps=40)),
    ),
]


# --- optax ----------------------------------------------------------------------------------------


def optax_run(optimizer):
    params = split(START)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)

    def step(gradients):
        nonlocal params, state
        updates, state = update(gradients, state, params)
        params = {n: np.asarray(params[n] + updates[n]) for n in SHAPES}

    trajectory = follow(step, lambda: params)
    if isinstance(state, optax.contrib.ScheduleFreeState):
        average = optax.contrib.schedule_free_eval_params(state, params)
        return {"trajectory": trajectory, "average": flat(average)}
    return {"trajectory": trajectory}


MASK = {name: name in KERNELS for name in SHAPES}
OPTAX = [
    ("sgd", {"learning_rate": 0.05, "momentum": 0.9}, lambda: optax.sgd(0.05, 0.9)),
    (
        "sgd",
        {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True},
        lambda: optax.sgd(0.05, 0.9, nesterov=True),
    ),
    (
        "adagrad",
        {"learning_rate": 0.1, "epsilon": 1e-7, "epsilon_in_root": True, "initial": 0.1},
        lambda: optax.adagrad(0.1),
    ),
    (
        "rmsprop",
        {"learning_rate": 0.01},
        lambda: optax.rmsprop(0.01, decay=0.9, eps=1e-8, eps_in_sqrt=False),
    ),
    (
        "rmsprop",
        {"learning_rate": 0.01, "epsilon": 1e-4, "epsilon_in_root": True, "momentum": 0.8},
        lambda: optax.rmsprop(0.01, decay=0.9, eps=1e-4, eps_in_sqrt=True, momentum=0.8),
    ),
    (
        "rmsprop",
        {"learning_rate": 0.01, "epsilon": 1e-4, "epsilon_in_root": True, "centred": True},
        lambda: optax.rmsprop(0.01, decay=0.9, eps=1e-4, eps_in_sqrt=True, centered=True),
    ),
    ("adadelta", {}, lambda: optax.adadelta(1.0, rho=0.95, eps=1e-6)),
    ("adam", {"learning_rate": 0.01}, lambda: optax.adam(0.01)),
    (
        "adamw",
        {"learning_rate": 0.01, "weight_decay": 0.3},
        lambda: optax.adamw(0.01, weight_decay=0.3, mask=MASK),
    ),
    ("adamax", {"learning_rate": 0.02}, lambda: optax.adamax(0.02)),
    ("nadam", {"learning_rate": 0.01}, lambda: optax.nadam(0.01)),
    ("radam", {"learning_rate": 0.01}, lambda: optax.radam(0.01)),
    (
        "amsgrad",
        {"convention": "optax", "learning_rate": 0.01},
        lambda: optax.amsgrad(0.01),
    ),
    (
        "amsgrad",
        {"convention": "paper", "learning_rate": 0.01},
        lambda: optax.chain(
            optax.scale_by_amsgrad(bias_correction_mu=False, bias_correction_nu=False),
            optax.scale(-0.01),
        ),
    ),
    ("lion", {"learning_rate": 0.01}, lambda: optax.lion(0.01, weight_decay=0.0)),
    (
        "muon",
        {"nesterov": False},
        lambda: optax.contrib.muon(
            0.02,
            nesterov=False,
            eps=1e-30,
            adam_b2=0.95,
            adam_learning_rate=3e-4,
        ),
    ),
    ("schedule_free_sgd", {"learning_rate": 0.3}, lambda: optax.contrib.schedule_free_sgd(0.3)),
    (
        "schedule_free_adamw",
        {"learning_rate": 0.02},
        lambda: optax.contrib.schedule_free_adamw(0.02),
    ),
]


# --- Keras ----------------------------------------------------------------------------------------


def keras_run(optimizer):
    params = {n: keras.Variable(w, dtype="float64", name=n) for n, w in split(START).items()}
    optimizer.exclude_from_weight_decay(var_list=[params["bias"]])
    optimizer.build(list(params.values()))

    def step(gradients):
        grads = [keras.ops.convert_to_tensor(gradients[n], dtype="float64") for n in SHAPES]
        optimizer.apply(grads, list(params.values()))

    def read():
        return {n: keras.ops.convert_to_numpy(w).copy() for n, w in params.items()}

    return {"trajectory": follow(step, read)}


k = keras.optimizers
KERAS = [
    ("sgd", {"learning_rate": 0.05, "momentum": 0.9}, lambda: k.SGD(0.05, momentum=0.9)),
    (
        "sgd",
        {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True},
        lambda: k.SGD(0.05, momentum=0.9, nesterov=True),
    ),
    (
        "adagrad",
        {"learning_rate": 0.1, "epsilon": 1e-7, "epsilon_in_root": True, "initial": 0.1},
        lambda: k.Adagrad(0.1),
    ),
    (
        "rmsprop",
        {"learning_rate": 0.01, "epsilon": 1e-4, "epsilon_in_root": True, "momentum": 0.8},
        lambda: k.RMSprop(0.01, rho=0.9, epsilon=1e-4, momentum=0.8),
    ),
    (
        "rmsprop",
        {"learning_rate": 0.01, "epsilon": 1e-4, "epsilon_in_root": True, "centred": True},
        lambda: k.RMSprop(0.01, rho=0.9, epsilon=1e-4, centered=True),
    ),
    ("adadelta", {}, lambda: k.Adadelta(1.0, rho=0.95, epsilon=1e-6)),
    (
        "adam",
        {"learning_rate": 0.01, "epsilon": 1e-30},
        lambda: k.Adam(0.01, epsilon=1e-30),
    ),
    (
        "adamw",
        {"learning_rate": 0.01, "epsilon": 1e-30, "weight_decay": 0.3},
        lambda: k.AdamW(0.01, epsilon=1e-30, weight_decay=0.3),
    ),
    (
        "adamax",
        {"learning_rate": 0.02, "epsilon": 1e-30},
        lambda: k.Adamax(0.02, epsilon=1e-30),
    ),
    (
        "nadam",
        {"learning_rate": 0.01, "momentum_decay": 1.0},
        lambda: k.Nadam(0.01, epsilon=1e-8),
    ),
    (
        "padam",
        {"convention": "authors", "learning_rate": 0.01, "p": 0.5},
        lambda: k.Adam(0.01, epsilon=1e-8, amsgrad=True),
    ),
    ("lion", {"learning_rate": 0.01}, lambda: k.Lion(0.01)),
]


def write(library, packages, runs):
    content = {
        "made_by": "tests/parts/oracles/make_optimizers.py",
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "recorded": list(RECORDED),
    }
    rows = []
    for optimizer, arguments, run in runs:
        row = {"optimizer": optimizer, "arguments": arguments} | run()
        rows.append(json.dumps(row, separators=(",", ":")))
        print(library, optimizer, arguments)
    head = json.dumps(content)[:-1]
    path = HERE / f"optimizers_{library}.json"
    path.write_text(head + ', "runs": [\n' + ",\n".join(rows) + "\n]}\n")
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    keras.config.set_floatx("float64")
    torch.set_default_dtype(torch.float64)
    write("torch", ["torch", "schedulefree", "numpy"], TORCH)
    write(
        "optax",
        ["optax", "jax", "numpy"],
        [(n, a, lambda make=make: optax_run(make())) for n, a, make in OPTAX],
    )
    write(
        "keras",
        ["keras", "torch", "numpy"],
        [(n, a, lambda make=make: keras_run(make())) for n, a, make in KERAS],
    )
