"""Diagnose the shipped experiments: those that learn have no fault, the others the right cause.

    python benchmarks/diagnose_experiments.py [names ...]

Exit code 1 where an answer is another one. Runs that take too long are cut short.
"""

import sys
import time
from pathlib import Path

import jax

from nnref.diagnosis.api import diagnose
from nnref.errors import UserError
from nnref.training.compilation import use_cache

EXPERIMENTS = Path("experiments")
NOT_TRAINED = ("signal_",)  # a signal is sent through once, nothing is to be learned
# Two hidden units learn exclusive-or from most starts, and not from all, and from some that fail
# with ten times the rate: all three answers are right.
NARROW = {"insufficient_capacity", "learning_rate_too_low", None}
# Experiments that show how something fails, and the causes that are right answers.
FAIL = {
    **dict.fromkeys(("xor_batch_two_hidden", "xor_batch_adam", "xor_batch_padam"), NARROW),
    **dict.fromkeys(("xor_batch_momentum", "xor_two_hidden", "xor_online_two_hidden"), NARROW),
    "digits_deep_plain": {"exploding_gradients"},  # Yang et al. 2019: batch normalization in depth
    # An orthogonal start cures it; None where its run is cut short.
    "adding_rnn": {"vanishing_gradients", "initialization_too_small", None},
    # 60 % correct is all that they claim.
    **dict.fromkeys(
        ("clip_and_rate", "clip_and_rate_times_ten"), {"undertrained", "learning_rate_too_low"}
    ),
    # Every step is clipped. It learns 0.75 of what simple models find, which is a note, no fault.
    "text_lstm_clip_low_rate": {"learning_rate_too_low", None},
    # They are dead from the start, and their rate of 1e-30 moves nothing: both are true.
    **dict.fromkeys(
        ("dying_relu_9x2", "dying_relu_19x4"), {"dying_relu", "parameters_not_updated"}
    ),
}


def main():
    use_cache()
    names = sys.argv[1:] or sorted(path.stem for path in EXPERIMENTS.glob("*.json"))
    wrong = 0
    for name in names:
        if name == "schema" or name.startswith(NOT_TRAINED):
            continue
        began = time.perf_counter()
        try:
            found = diagnose(EXPERIMENTS / f"{name}.json")
        except UserError as error:
            print(f"{name:30} not diagnosed  {str(error)[:100]}", flush=True)
            continue
        causes = [finding.cause for finding in found.faults]
        first = causes[0] if causes else None
        right = first in FAIL.get(name, {None})
        wrong += not right
        named = ", ".join(causes) or "nothing found"
        word = "right" if right else "WRONG"
        print(f"{name:30} {word}  {time.perf_counter() - began:5.1f} s  {named}", flush=True)
        jax.clear_caches()
    print(f"{wrong} answers are wrong" if wrong else "every answer is right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
