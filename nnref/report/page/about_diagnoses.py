"""The page of a diagnosis: the verdict, the user's own line, what proves it, what was tried."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnref.diagnosis.causes import CAUSES, EDITS
from nnref.diagnosis.findings import FIGURES, MISTAKE, TRIED, Finding, Findings, code_line, details
from nnref.diagnosis.proof import Curve, Proof
from nnref.report.page.blocks import (
    Bar,
    Bars,
    Block,
    Chart,
    Code,
    Heading,
    Headline,
    Line,
    Panel,
    Pictures,
    Report,
    Section,
    Switch,
    Switches,
    Table,
    View,
    Words,
    figure,
)
from nnref.report.page.curves import last, rounded
from nnref.report.page.document import html
from nnref.report.page.panels import heat_map

AS_IT_IS = "as it is"
SCALE = "from 0 (the best constant answer) to 1 (perfect)"
GREY = 7
# Changes with which losses are no longer in the unit that they had.
OTHER_UNIT = {"targets", "inputs and targets", "loss", "outputs and loss"}
LAYER_MEASURES = {"gradient": "Gradient norm", "update": "Update / weight"}


def page_of(found: Findings) -> str:
    """A diagnosis as the text of an HTML page."""
    return html(report_of_diagnosis(found))


def report_of_diagnosis(found: Findings) -> Report:
    """A diagnosis as a report: sections are left out where there is nothing to say."""
    made = [
        *([Section("why", "Why", why_blocks(found))] if found.faults else []),
        curves_section(found),
        tried_section(found),
        layers_section(found),
        reached_section(found),
        *notes_sections(found),
        checked_section(found),
    ]
    sections = [section for section in made if section is not None and section.blocks]
    return Report("Diagnosis", [headline_of(found)], sections)


def headline_of(found: Findings) -> Headline:
    """The verdict, with the figures that it rests on."""
    if found.faults or found.learns is False:
        tone, word = "bad", "fault" if found.faults else "not explained"
    elif found.mistakes and found.learns is None:
        tone, word = "plain", "not looked at"
    else:
        tone, word = "good", "no fault"
    measures = found.measures
    names = {
        "on training rows": "skill on training rows",
        "on validation rows": "skill on validation rows",
        "first loss": "first loss",
        "last loss": "last loss",
        "steps": "steps",
    }
    known = {label: measures[name] for label, name in names.items() if name in measures}
    facts = [(label, figure(value)) for label, value in known.items() if value is not None]
    simple = measures.get("skill of simple models") or {}
    if simple:
        facts.insert(1, ("best simple model", figure(max(simple.values()))))
    return Headline(tone, word, "diagnosis", found.headline, " ".join(found.advice), facts)


def why_blocks(found: Findings) -> list[Block]:
    """Each fault with the line of code that it is about, its remedy and its symptoms."""
    blocks: list[Block] = []
    for number, finding in enumerate(found.faults, 1):
        ordinal = f"{number}. " if len(found.faults) > 1 else ""
        sure = f", {finding.confidence:.0%} sure" if finding.confidence < 1 else ""
        sentence = CAUSES[finding.cause].sentence
        blocks += [
            Heading(f"{ordinal}{sentence[0].upper()}{sentence[1:]} [{finding.cause}{sure}]"),
            *about(finding),
        ]
        if finding.symptoms:
            rows = [[CAUSES[s.cause].sentence, s.evidence] for s in finding.symptoms]
            caption = "and, as it seems, because of it"
            blocks.append(Table(caption, ["also seen", "how"], rows, numbers=False))
    return blocks


def about(finding: Finding) -> list[Block]:
    """What was seen, the line of the user's program where there is one, and the details."""
    blocks: list[Block] = [Words(finding.evidence)]
    line = code_line(finding.where)
    if line is not None:
        blocks.append(Code(f"{line.file}, line {line.number}", line.around()))
    rows = [[word, text] for word, text in details(finding)]
    if rows:
        blocks.append(Table("in detail", ["", ""], rows, numbers=False, headless=True))
    return blocks


# --- the run, and what was tried ------------------------------------------------------------------


def curves_section(found: Findings) -> Section | None:
    """The losses of the run, beside those of the cured one where a fault has its proof."""
    proof = next((f.proof for f in found.faults if f.proof and f.proof.edit), None)
    curves = () if proof is None else proof.curves
    if not curves and "losses" in found.measures:
        curves = (Curve(**found.measures["losses"]),)
    if not any(curve.epochs for curve in curves):
        return None
    assert curves, "there is one"
    if proof is None:
        return Section("run", "The run", [loss_chart(curves, "", False)])
    cured = EDITS[proof.edit]
    blocks: list[Block] = [loss_chart(curves, cured, proof.edit in OTHER_UNIT)]
    if proof.gain is not None:
        blocks.insert(0, gain_bars(proof, curves[0].seed))
    about = f"The same training {cured}; of several seeds, the first one is the thick line."
    return Section("run", "The run beside the cured one", blocks, about)


def gain_bars(proof: Proof, first: int) -> Bars:
    """The skill without and with the change, from the first seed on."""
    pairs = enumerate(zip(proof.before, proof.after, strict=True), first)
    bars = [
        Bar(f"seed {seed}, {word}", value, colour)
        for seed, pair in pairs
        for colour, (word, value) in enumerate(zip((AS_IT_IS, "changed"), pair, strict=True))
    ]
    assert proof.gain is not None, "of one seed there are no bars"
    gain, low, high = proof.gain
    note = f"{gain:.2f} more with the change; 95 % interval [{low:.2f}, {high:.2f}]"
    return Bars(f"skill, {SCALE}", bars, note)


def loss_chart(curves: Sequence[Curve], cured: str, relative: bool) -> Chart:
    """Training losses over the epochs, the user's own seed thick.

    Where the change is one of the loss or of its targets, each is over that of its first epoch:
    two losses of different units have nothing else in common.
    """
    curves = [curve for curve in curves if curve.epochs]
    x = np.unique(np.concatenate([curve.epochs for curve in curves]))
    several = len({curve.seed for curve in curves}) > 1
    lines, first = [], curves[0].seed
    for curve in curves:
        losses = np.array(curve.losses, float)
        losses = losses / losses[0] if relative else losses
        losses[~np.isfinite(losses)] = np.nan
        values = np.interp(x, curve.epochs, losses, right=np.nan)
        word = cured if curve.changed else AS_IT_IS
        seed = (f"seed {curve.seed}",) if several else ()
        label = ", ".join((word, *seed))
        style = {"thin": curve.seed != first, "family": word, "colour": int(curve.changed)}
        lines.append(Line(label, rounded(values), tags=(word, *seed), **style))
    lines.sort(key=lambda line: not line.thin)
    words = [AS_IT_IS, *([cured] if cured else [])]
    switches = [Switches("show", [Switch(word, word, n) for n, word in enumerate(words)])]
    if several:
        seeds = [f"seed {seed}" for seed in sorted({curve.seed for curve in curves})]
        switches.append(Switches("seeds", [Switch(seed, seed) for seed in seeds]))
    title = "training loss" + (", over that of the first epoch" if relative else "")
    shown = [value for line in lines for value in line.values if value is not None]
    view = View(title, x.tolist(), lines, log=bool(shown) and min(shown) > 0)
    ends = ", ".join(f"{line.label} {figure(last(line.values))}" for line in lines)
    return Chart(f"{title}; in the end: {ends}", "epoch", [view], switches)


def tried_section(found: Findings) -> Section | None:
    """The skill of every further run as a bar, that of the run itself first."""
    if not found.tried:
        return None
    bars = [Bar(AS_IT_IS, found.measures["skill on training rows"], 0)]
    cures = {EDITS[f.edit] for f in found.faults if f.edit}
    bars += [Bar(words, skill, 1 if words in cures else GREY) for words, skill in found.tried]
    return Section("tried", TRIED.rstrip(":"), [Bars(f"skill on training rows, {SCALE}", bars)])


def layers_section(found: Findings) -> Section | None:
    """Gradient and update of each kernel over the run, as heat maps."""
    layers = found.measures.get("layers")
    if not layers or not layers["names"]:
        return None
    panels = [layer_panel(layers, name, title) for name, title in LAYER_MEASURES.items()]
    about = (
        "Of each kernel, from the first layer at the top to the last. A healthy update is about a "
        "thousandth of the weight at each step. Blank where a number is 0 or not finite."
    )
    return Section("layers", "Layers over the run", [Pictures(panels)], about)


def layer_panel(layers: dict[str, Any], name: str, title: str) -> Panel:
    """A measure of the kernels over the steps."""
    values = np.array(layers[name], float)
    ends = zip(layers["names"], values[0], values[-1], strict=True)
    changes = "; ".join(f"{layer} from {start:.3g} to {end:.3g}" for layer, start, end in ends)
    steps = np.array(layers["steps"], float)
    return heat_map(title, f"{title}: {changes}", values, steps, layers["names"], True, "step")


# --- the rest -------------------------------------------------------------------------------------


def reached_section(found: Findings) -> Section | None:
    """What was reached, beside simple models."""
    if not found.figures:
        return None
    rows = [list(pair) for pair in found.figures]
    table = Table(FIGURES.rstrip(":"), ["", ""], rows, numbers=False, headless=True)
    return Section("reached", "What was reached", [table])


def notes_sections(found: Findings) -> list[Section]:
    """The notes, those about rows that were not trained on apart."""
    return [
        Section(
            f"notes-{number}",
            title.rstrip(":"),
            [
                block
                for note in notes
                for block in (Heading(f"{note.where} [{note.cause}]".strip()), *about(note))
            ],
        )
        for number, (title, notes) in enumerate(found.sections, 1)
    ]


def checked_section(found: Findings) -> Section:
    """What was looked at, what could not be, and mistakes of nnref's own."""
    blocks: list[Block] = [Words(f"{MISTAKE} {line}") for line in found.mistakes]
    if found.checked:
        blocks.append(Words(f"Looked at: {', '.join(found.checked)}."))
    if found.impossible:
        blocks.append(Words(f"Not possible: {'; '.join(found.impossible)}."))
    return Section("checked", "What was looked at", blocks)
