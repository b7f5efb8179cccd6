"""What a user did wrong, in the user's words: shown without a traceback, exit code 2."""

import difflib
import re
from collections.abc import Iterable

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class UserError(ValueError):
    """A mistake in a file, an argument or the data: what was given, what is allowed, what to do."""


# Names of nnref, and what other libraries, and people, call the same; a path names a key of another
# part of an experiment.
SYNONYMS = {
    "squared_error": "mse mse_loss mean_squared_error l2_loss",
    "absolute_error": "mae l1_loss mean_absolute_error",
    "mean_absolute_error": "mae l1",
    "huber": "smooth_l1 smooth_l1_loss huber_loss",
    "softmax_cross_entropy": "ce cross_entropy cross_entropy_loss categorical_crossentropy nll "
    "nll_loss sparse_categorical_crossentropy softmax_cross_entropy_with_integer_labels",
    "sigmoid_cross_entropy": "bce bce_loss cross_entropy binary_crossentropy bce_with_logits "
    "bce_with_logits_loss sigmoid_binary_cross_entropy log_loss",
    "valid_loss": "val_loss validation_loss eval_loss",
    "valid_accuracy": "val_accuracy val_acc validation_accuracy eval_accuracy",
    "train_accuracy": "train_acc training_accuracy",
    "accuracy": "acc categorical_accuracy binary_accuracy sparse_categorical_accuracy",
    "r2": "r2_score r_squared",
    "learning_rate": "lr step_size eta",
    "optimizer.learning_rate": "lr step_size eta learning_rate init_lr",
    "optimizer.momentum": "momentum",
    "regularization.weight_decay": "wd weight_decay decay",
    "regularization.dropout": "dropout dropout_rate",
    "regularization.label_smoothing": "label_smoothing",
    "regularization.normalization": "batch_norm batchnorm layer_norm layernorm normalization",
    "model.hidden": "hidden hidden_layers hidden_sizes hidden_layer_sizes layers units widths",
    "model.activation": "activation nonlinearity",
    "hidden": "hidden_layers hidden_sizes hidden_layer_sizes layers units widths width",
    "beta1": "b1 betas",
    "beta2": "b2",
    "epsilon": "eps",
    "kind": "task task_type problem_type",
    "drop": "ignore exclude drop_columns",
    "inputs": "features feature_columns",
    "target": "label y target_column",
    "balance": "class_weight class_weights balanced",
    "model": "net network arch architecture",
    "data": "dataset train_data",
    "loss": "criterion objective loss_fn loss_function",
    "optimizer": "optim opt solver",
    "schedule": "scheduler lr_scheduler lr_schedule learning_rate_schedule",
    "clipping": "clip clipnorm clip_norm grad_clip gradient_clip gradient_clipping max_grad_norm",
    "batch_size": "batch bs batchsize minibatch_size train_batch_size",
    "epochs": "n_epochs num_epochs max_epochs max_iter",
    "seeds": "seed random_state random_seed",
    "stop": "early_stopping early_stop patience callbacks",
    "silu": "swish",
    "linear": "identity none logistic_regression linear_regression",
    "mlp": "dense feedforward fully_connected",
    "convnet": "cnn conv_net",
    "recurrent": "rnn lstm gru",
    "he_normal": "kaiming kaiming_normal",
    "he_uniform": "kaiming_uniform",
    "glorot_normal": "xavier_normal",
    "glorot_uniform": "xavier xavier_uniform",
    "step": "step_lr",
    "exponential": "exponential_lr exponential_decay",
    "cosine": "cosine_decay cosine_annealing cosine_annealing_lr",
    "one_cycle": "one_cycle_lr onecycle cosine_onecycle",
    "reduce_on_plateau": "reduce_lr_on_plateau plateau",
    "global_norm": "clip_grad_norm clip_by_global_norm",
    # Commands and their options.
    "run": "train fit start experiment",
    "sweep": "tune search grid grid_search hparams",
    "predict": "infer inference eval evaluate",
    "lr-range": "lr_find lr_finder find_lr",
    "list": "ls experiments",
    "log": "history runs",
    "show": "summary describe info",
    "diff": "compare",
    "report": "dashboard html",
    "resume": "continue",
    "diagnose": "debug check doctor",
    "unit-tests": "test tests",
    "--set optimizer.learning_rate": "lr learning_rate",
    "--set batch_size": "batch_size bs",
    "--set optimizer": "optimizer",
    "--seed": "seeds random_state",
    "--logbook": "log_dir logdir",
}


def nearest(word: str, known: Iterable[str], elsewhere: Iterable[str] = ()) -> str:
    """`; did you mean "..."?` with what else a word is called, or the nearest word; or nothing.

    Of `elsewhere` nothing is meant but by a synonym.
    """
    letters, known = letters_of(word), list(known)
    for place in known, elsewhere:
        others = {name: map(letters_of, SYNONYMS.get(name, "").split()) for name in place}
        meant = [name for name, words in others.items() if letters in words]
        if meant:
            either = '" or "'.join(meant)
            return f'; did you mean "{either}"?'
    by_letters = {letters_of(name): name for name in known}
    match = difflib.get_close_matches(letters, by_letters, n=1, cutoff=0.5)
    return f'; did you mean "{by_letters[match[0]]}"?' if match else ""


def letters_of(word: str) -> str:
    """A word as it is compared: `CrossEntropyLoss` and `cross_entropy_loss` are the same."""
    return re.sub(r"[\s_-]", "", word).lower()


def printable(text: object) -> str:
    """A text whose control characters cannot move the cursor of a terminal, or change its title."""
    return CONTROL.sub("�", str(text))
