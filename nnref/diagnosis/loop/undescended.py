"""Losses that a step computes and that no parameter descends: a head of the network rests."""

from collections.abc import Iterator

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.loop.program import Program
from nnref.diagnosis.loop.running import Loop
from nnref.diagnosis.program.blocked import differentiable
from nnref.diagnosis.program.updates import listed


def never_descended(loop: Loop) -> Iterator[Finding]:
    """Terms of the outputs and the batch, of parameters that the loss has no part of.

    What is reported of a network whose parameters all learn, as a second error, is none, nor what
    a part says that no optimizer was given, as a teacher.
    """
    losses = [(program, loss) for _, program, loss, _ in loop.losses_of_steps()]
    if len(losses) < len(loop.programs):
        return
    needed = [(program, program.trace.needed([loss])) for program, loss in losses]
    idle = [
        path
        for path in updated(loop)
        if at_rest(loop, path) and all(p.old.get(path) not in values for p, values in needed)
    ]
    for program, loss in losses if idle else []:
        terms = terms_of(program, loss, idle)
        if not terms:
            continue
        makers = program.trace.makers
        lines = [makers[term].where for term in terms if term in makers]
        names = [n.rpartition(".")[2] for n, value in program.metrics.items() if value in terms]
        named = f" ({', '.join(names)})" if all(names) and names else ""
        count = len(names) or len(terms)
        kernels = [path for path in idle if loop.states[0][path].ndim > 1] or idle
        yield fault(
            "parameters_not_updated",
            f"{listed(kernels)}; {next(filter(None, lines), loop.line())}",
            f"{count} {'losses are' if count > 1 else 'loss is'} computed and never descended"
            f"{named}: outputs of {listed(kernels)} are held against the batch there, and the loss "
            f"that the parameters follow has no part of {'them' if count > 1 else 'it'}, as where "
            "a sum of terms is overwritten by one of them",
            "no way from these parameters to the loss",
            healthy="every term in the loss",
            remedy="the sum of all terms as the loss; leave out the line that puts another value "
            "in its place",
            confidence=0.9,
        )
        return


def updated(loop: Loop) -> list[str]:
    """The leaves that an optimizer was given: those with moments, else all that a step computes."""
    if loop.moments:
        return loop.of("parameter")
    programs = [program for program in loop.programs if program]
    return [
        path
        for path in loop.floating()
        if loop.roles[path] in ("parameter", "other")
        and path not in loop.optimizers
        and not all(program.passed_on(path) for program in programs)
    ]


def at_rest(loop: Loop, path: str) -> bool:
    """Whether no gradient has come to a leaf: it stands, or all of its moments are still 0."""
    own = [moment for moment, of in loop.moments.items() if of == path]
    decays = bool(own) and not any(loop.states[-1][moment].any() for moment in own)
    return loop.stands(path) or decays


def terms_of(program: Program, loss: int, idle: list[str]) -> list[int]:
    """Metrics, and numbers that nothing reads, in which outputs of these leaves meet the batch."""
    traced = program.trace
    own = traced.reached(
        [program.old[path] for path in idle if path in program.old], differentiable(traced)
    )
    data, state = traced.reached(program.batch), traced.reached(program.old.values())
    held = [
        out
        for op in traced.operations
        if own & data & set(op.inputs) and (data - state) & set(op.inputs)
        for out in op.outputs
    ]
    against = traced.reached(held, differentiable(traced)) & own
    used = {value for op in traced.operations for value in op.inputs} | set(traced.outputs)
    nowhere = [value for op in program.dead for value in op.outputs if value not in used]
    ends = dict.fromkeys([*nowhere, *program.metrics.values()])
    return [v for v in ends if v in against and v != loss and traced.size(v) == 1]
