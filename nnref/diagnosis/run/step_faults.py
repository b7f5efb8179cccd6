"""Faults that recorded steps show, whether diagnose, a user's loop or a bare loss took them."""

from typing import Any

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.program.birth import Birth

# What a step computes, in this order.
COMPUTED = ("outputs", "loss", "gradient", "update", "parameters")
# What to type against a number that is not finite, by where it is born.
GUARDS = {
    "outputs": "an epsilon in each denominator and root of apply: x / (x.std() + 1e-6)",
    "loss": "jnp.log(jnp.clip(p, 1e-7, 1)), or a loss of logits",
    "gradient": "jnp.log(jnp.clip(p, 1e-7, 1)), or a loss of logits",
    "update": "raise the optimizer's eps above the smallest number of the dtype, like eps=1e-4",
    "parameters": "parameters in float32: the update was finite, and its sum was not",
}


def first_nonfinite(
    born: str,
    step: int,
    measured: str,
    *,
    grew: bool,
    where: str = "",
    birth: Birth | None = None,
    **specific: Any,
) -> Finding:
    """The first number that is not finite: steps that are too large, or arithmetic.

    Args:
        born: the first of `COMPUTED` that is not finite.
        step: its number, from 1.
        measured: the numbers before it.
        grew: whether loss, weights or updates grew towards it: then the learning rate is at fault.
        where: the optimizer, or where it was born, unless this says otherwise.
        birth: the operation where it was born, if it is known.
        specific: other fields of the finding.
    """
    sentence = f"the first non-finite number is born in the {born} of step {step}"
    if grew:
        return fault(
            "learning_rate_too_high",
            where or "optimizer",
            f"{sentence}, after numbers that grow from step to step",
            measured,
            remedy="divide the learning rate by 10, or put optax.clip_by_global_norm(1.0) first",
            **specific,
        )
    evidence = f"{sentence} while everything before it is moderate"
    remedy = GUARDS[born]
    if birth is not None:
        evidence += f", by {birth.name}"
        where, remedy = birth.where or where, birth.remedy or remedy
    return fault(
        "numerical_instability", where or born, evidence, measured, remedy=remedy, **specific
    )


def climbing(cosine: float, where: str = "optimizer", **specific: Any) -> Finding:
    """Updates along the gradient; `cosine` is the median of the angle between the two."""
    evidence = "the updates point along the gradient, not against it: the loss is climbed"
    measured = f"cosine of update and gradient {cosine:+.2f}"
    return fault("gradient_ascent", where, evidence, measured, **specific)


def zero_updates() -> Finding:
    """Updates that are 0 though there is a gradient."""
    evidence = "there is a gradient at every step, and every update is exactly 0"
    return fault("parameters_not_updated", "optimizer", evidence, "update 0")
