"""The vocabulary of a diagnosis: its causes, in their order, and the changes that are tried."""

from typing import NamedTuple

from nnref.diagnosis.thresholds import bound


class Cause(NamedTuple):
    """A sentence that says what is wrong, what is measured where nothing is, and what to type.

    `healthy` and `remedy` are those of a finding that says nothing more specific.
    """

    sentence: str
    healthy: str = ""
    remedy: str = ""


# The vocabulary, upstream first: a cause stands before what it may bring about.
CAUSES: dict[str, Cause] = {
    "broken_program": Cause("the program stops with an exception"),
    "nonfinite_data": Cause(
        "the data hold NaN or infinity",
        "none",
        "keep = np.isfinite(x).all(1); x, y = x[keep], y[keep]",
    ),
    "corrupted_labels": Cause(
        "labels do not belong to the rows, or were destroyed",
        "targets that belong to their rows",
        "order = rng.permutation(len(x)); x, y = x[order], y[order]",
    ),
    "rows_dropped": Cause(
        "rows are lost on the way to the network",
        "every row in every epoch, or another part of them",
        "count the rows of an epoch: sum(len(x) for x, y in loader)",
    ),
    "integer_overflow": Cause(
        "integers wrapped round",
        "no result beyond the range of its dtype",
        "x = x.astype(np.float32) before any arithmetic",
    ),
    "augmentation_changes_answer": Cause(
        "augmentation changes the answer and leaves the target",
        "a model of the raw rows that says of an augmented one what its target says",
        "leave this augmentation out, or change the target along with the row",
    ),
    "leaked_targets": Cause(
        "the inputs give the targets away",
        "no target among the inputs",
        "leave what is known only with the target out of the inputs",
    ),
    "no_signal": Cause(
        "the inputs say nothing about the targets",
        "rows that differ as their targets do",
        "look at the last cast, scale or crop of the inputs: uint8 of 0..1 is all 0",
    ),
    "unshuffled_split": Cause(
        "training and validation hold different classes",
        "the same in every split",
        "order = rng.permutation(len(x)) before the split",
    ),
    "splits_differ": Cause(
        "the splits do not mean the same",
        "a model fitted to training rows is as good on validation rows as one fitted to these",
        "prepare every split by the same code, with the statistics of the training rows",
    ),
    "class_imbalance": Cause(
        "rare classes drown in the frequent ones",
        f"within a factor of {bound('imbalance'):g}",
        "weigh each row by 1 / share of its class, or draw classes evenly",
    ),
    "metric_mismatch": Cause(
        "the metric is wrong, the training is not",
        "what accuracy or R² gives",
        "compare outputs and targets of the same shape: outputs[:, 0] > 0.5 with y[:, 0]",
    ),
    "predictions_in_another_unit": Cause(
        "predictions are not in the unit of the targets",
        "predictions and targets of one scale, and classes of one numbering",
        "unscale(predict(x)), with the mean and deviation that the targets were scaled by",
    ),
    "loss_broadcast": Cause(
        "outputs and targets of unequal shapes fill a matrix in the loss",
        "outputs and targets of one shape",
        "outputs[:, 0] - y",
    ),
    "loss_axis_error": Cause(
        "softmax or sum over the wrong axis", "each row by itself", "axis=-1 instead of axis=0"
    ),
    "softmax_on_single_unit": Cause(
        "softmax over one unit is the constant 1",
        "depends on the last layer",
        "jax.nn.sigmoid instead of softmax for one unit; nothing for a real value",
    ),
    "output_width_mismatch": Cause(
        "the number of outputs does not fit the targets",
        "a unit for each class or target",
        "a last layer as wide as the targets",
    ),
    "double_softmax": Cause(
        "softmax before a loss that applies it again",
        "what the loss expects",
        "return the values before the softmax",
    ),
    "output_activation_missing": Cause(
        "the loss expects probabilities and gets raw values",
        "what the loss expects",
        "jax.nn.softplus as the last activation, or outputs that are logarithms",
    ),
    "relu_output": Cause(
        "ReLU on the output", "what the loss expects", "no activation after the last layer"
    ),
    "output_range_excludes_targets": Cause(
        "a bounded output cannot reach the targets",
        "a range that holds the targets",
        "no activation after the last layer, and targets of unit scale",
    ),
    "output_activation_mismatch": Cause(
        "the output activation does not fit the targets or the loss",
        "what the loss expects",
        "no activation after the last layer",
    ),
    "loss_mismatch": Cause(
        "the loss does not measure the task",
        "a loss that falls as outputs come near the targets",
        "a cross-entropy for classes, a squared error for values",
    ),
    # Before the next: an index outside of a table gives NaN.
    "wrong_expression": Cause(
        "an expression of the program is not what it should be",
        "no small edit of one expression makes the evaluation so much better",
        "make the edit, if it is what you meant: it was trained, and the evaluation is better",
    ),
    "inputs_ignored": Cause(
        "the network does not look at the inputs that carry the answer",
        "outputs that change with every input that matters",
        "look at the mask, the step or the index by which the inputs are read",
    ),
    "numerical_instability": Cause(
        "a logarithm, root or division at the edge of its domain",
        "finite",
        "an epsilon in each denominator, root and logarithm",
    ),
    "gradient_ascent": Cause(
        "the updates climb",
        "below 0",
        "a positive learning rate, and params + updates as optax.apply_updates does",
    ),
    "wrong_gradient": Cause(
        "the gradient is not the slope of the loss",
        f"equal to {bound('slope'):.0%}",
        "the derivative of what is computed: jax.test_util.check_grads(f, (x,), order=1) "
        "tells whether a function's is right",
    ),
    "gradient_blocked": Cause(
        "the gradient is cut on its way to parameters that matter",
        "a gradient for every parameter that changes the loss",
        "no stop_gradient, argmax or rounding between the parameter and the loss",
    ),
    "parameters_not_updated": Cause(
        "parameters get no gradient, or their updates are thrown away",
        "an update of about 1e-3 of the weights a step",
        "a learning rate above 0",
    ),
    "state_not_carried": Cause(
        "a part of the state that should go on from step to step does not",
        "each step goes on from where the last one ended",
        "return the new optimizer state, key and counters from the step, and carry them on",
    ),
    "value_compiled_in": Cause(
        "a compiled function keeps a value of its first call",
        "the same update, compiled anew or not",
        "hand the value over as an argument of the compiled function, or keep it in the state",
    ),
    "target_stands": Cause(
        "a target network or an average does not follow as it should",
        "a small share of the way at every update, or a copy every few hundred",
        "target = optax.incremental_update(params, target, 0.005) after every update",
    ),
    "devices_disagree": Cause(
        "each device trains a network of its own",
        "the same parameters on all devices",
        'gradients = jax.lax.pmean(gradients, axis_name="devices") before the update',
    ),
    "precision_lost": Cause(
        "parameters come back in fewer bits",
        "the dtype that they came in with",
        "compute in bfloat16, and keep parameters and updates in float32",
    ),
    "batch_statistics_not_updated": Cause(
        "the running statistics are not those of the batches",
        "a running mean of the batches",
        "return the new state from apply and carry it to the next step",
    ),
    "constant_initialization": Cause(
        "units start identical and stay so",
        "every column its own draw",
        "draw the kernel at random: jax.nn.initializers.he_normal()",
    ),
    "inputs_misread": Cause(
        "the numbers of the inputs stand in another order than their shape says",
        "neighbours that are alike",
        "x.transpose(0, 3, 1, 2) where x.reshape(len(x), 3, height, width) stands",
    ),
    "padding_counts": Cause(
        "what fills up a row counts as if it were something",
        "rows that fill up a batch have no part in a sum",
        "fill up with a number that no row has, or multiply what is added by a mask",
    ),
    "inputs_scaled_twice": Cause(
        "the inputs were normalized again",
        "mean about 0, deviation about 1",
        "x = (x - x_train.mean(0)) / x_train.std(0)",
    ),
    "inputs_not_normalized": Cause(
        "the inputs are far from unit scale",
        "mean about 0, deviation about 1",
        "x = (x - x_train.mean(0)) / x_train.std(0)",
    ),
    "targets_not_scaled": Cause(
        "the targets are of a huge scale",
        "mean about 0, deviation about 1",
        "y = (y - y_train.mean()) / y_train.std()",
    ),
    "hidden_activation_missing": Cause(
        "layers without a nonlinearity between them",
        "an activation after each hidden layer",
        "x = jax.nn.relu(x) after each hidden layer",
    ),
    "hidden_activation_mismatch": Cause(
        "an unsuitable hidden activation", "relu, tanh", "jax.nn.relu instead of jax.nn.softmax"
    ),
    "initialization_too_large": Cause(
        "the first outputs are enormous",
        "kernel deviation 1 to 1.5 / sqrt(fan_in)",
        "jax.nn.initializers.he_normal()",
    ),
    "initialization_too_small": Cause(
        "the signal dies on its way to the output",
        "about the same in every layer: kernel deviation sqrt(2 / fan_in)",
        "jax.nn.initializers.he_normal()",
    ),
    "exploding_gradients": Cause(
        "the signal grows in depth",
        f"below {bound('exploding'):g} times",
        "jax.nn.initializers.he_normal(), and no gain above sqrt(2) in a layer",
    ),
    "vanishing_gradients": Cause(
        "the gradient dies on its way to the input",
        f"above {bound('vanishing'):g}",
        "use relu in the hidden layers, or fewer of them",
    ),
    "excessive_regularization": Cause(
        "the penalty outweighs the data",
        "below the data loss",
        "divide the penalty's factor by 100",
    ),
    "random_key_reused": Cause(
        "the random numbers are the same at every step",
        "another key at every step",
        "key = jax.random.fold_in(key, step), or split it, at every step",
    ),
    "excessive_dropout": Cause(
        "dropout leaves no signal", f"below {bound('noise'):.0%}", "a dropout rate of 0.2 to 0.5"
    ),
    "loss_summed_over_batch": Cause(
        "a sum where a mean is meant", "the same loss", "jnp.mean over the rows instead of jnp.sum"
    ),
    "learning_rate_too_high": Cause(
        "steps overshoot",
        "an update of about 1e-3 of the weights a step",
        "divide the learning rate by 10",
    ),
    "dying_relu": Cause(
        "units that no row activates",
        "a living unit in every layer",
        "a wider layer, he_normal, or leaky_relu",
    ),
    "insufficient_capacity": Cause(
        "the network is too small",
        "what a simple model reaches",
        "more units in the narrowest layer",
    ),
    "learning_rate_too_low": Cause(
        "steps are too small for the run",
        "an update of about 1e-3 of the weights a step",
        "ten times the learning rate",
    ),
    "undertrained": Cause(
        "the run is too short", "a loss that has stopped falling", "five times the epochs"
    ),
    "last_value_repeated": Cause(
        "the network does no better than the last value of the series",
        "an error below that of the last value",
        "differences as targets, y - x[:, -1], and as inputs, np.diff(x, axis=1)",
    ),
    "repeated_rows": Cause(
        "rows stand more than once, or in more than one split",
        "rows that stand once, in one split",
        "split before rows are repeated or drawn",
    ),
    "training_in_evaluation_mode": Cause(
        "training runs in evaluation mode",
        "dropout that draws, statistics of the batch",
        "model.train() before the module is handed over (NNX), or eqx.nn.inference_mode(model, "
        "False); leave it where it is meant",
    ),
    "evaluation_in_training_mode": Cause(
        "evaluation runs in training mode",
        "the same answer each time, and a state that stays as it is",
        "model.eval(), train=False or deterministic=True in evaluation",
    ),
    "overfitting": Cause(
        "good on the training rows, poor on others",
        f"validation above {bound('failed'):.0%} of training",
        "more data, a smaller network, regularization",
    ),
}
RANK = {cause: rank for rank, cause in enumerate(CAUSES)}

# What is changed in a further run, as a report says it: "with ..., it learns".
EDITS: dict[str, str] = {
    "inputs": "with standardized inputs",
    "targets": "with standardized targets",
    "inputs and targets": "with standardized inputs and targets",
    "inputs, rate x10": "with standardized inputs and ten times the learning rate",
    "inputs, rate x100": "with standardized inputs and a hundred times the learning rate",
    "initialization": "with kernels drawn as He et al. 2015 do",
    "penalty": "without the penalty",
    "decay": "without any penalty or decay of the weights",
    "quiet": "without any dropout",
    "longer": "with five times the epochs",
    "rate x0.1": "with a tenth of the learning rate",
    "rate x0.01": "with a hundredth of the learning rate",
    "rate x10": "with ten times the learning rate",
    "rate x100": "with a hundred times the learning rate",
    "turned": "with every update turned round",
    "another task": "on a simple task of the same shapes",
    "optimizer": "under Adam at 0.001 behind a clip of the gradient at 1",
    "optimizer x10": "under Adam at 0.01 behind a clip of the gradient at 1",
    "outputs": "with the raw outputs of the last layer",
    "loss": "with the loss that fits the targets",
    "outputs and loss": "with raw outputs and the loss that fits the targets",
    "opposite": "with the two targets exchanged",
    "padding": "with the padding in front of each row",
    "activation": "with ReLU in the hidden layers",
    "batch": "with batches of 32 rows",
    "everything": "with everything but the layers exchanged",
    "everything x10": "with everything but the layers exchanged, at ten times that rate",
    "same width": "with a plain network of the same widths in its place",
    "same width x10": "with a plain network of the same widths, at ten times the rate",
    "wider": "with a plain network of wider layers in its place",
    "wider x10": "with a plain network of wider layers, at ten times the rate",
}
