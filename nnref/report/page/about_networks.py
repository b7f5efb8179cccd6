"""The part of a report about trained networks: their layers, and their answers."""

import io
from base64 import b64encode
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image as Pixels

from nnref.errors import UserError
from nnref.logbook import pages
from nnref.logbook.verdicts import medians
from nnref.report.page import inspection
from nnref.report.page.blocks import (
    Block,
    Code,
    Heading,
    Image,
    Panel,
    Pictures,
    Section,
    Table,
    Words,
    figure,
)
from nnref.report.page.panels import confusion_panel, heat_map, histogram, residual_panels
from nnref.report.page.subjects import SPLITS, ExperimentPages, Network
from nnref.studies.run import Trained, trained
from nnref.training.probes import MEASURES

LAYERS = 12  # layers whose histograms are drawn, over all experiments
COLUMNS = 200  # columns of a heat map, at most
CLASSES = 60  # classes of a confusion matrix, at most
SIDE = 64  # pixels of the longer side of an image that is shown
NOT_ASKED = "left out, as --no-network asks"
LAYER_MEASURES = {
    "gradient_norm": ("Gradient norm", True),
    "weight_norm": ("Weight norm", True),
    "update_ratio": ("Update / weight", True),
    "dead": ("Dead units", False),
    "saturated": ("Saturated units", False),
}
"""A title for each measure of the layers, and whether its colours are by the logarithm."""


def network_of(subject: ExperimentPages) -> Network:
    """The network of the first run that ended well, or in words why there is none.

    Nothing is trained for it.
    """
    for page in subject.pages:
        if page.complete and not page.facts.get("ending", "").startswith("diverged"):
            try:
                return trained(page.path, again=False)
            except UserError as error:
                return str(error)
    return "no run has come to its end with finite numbers"


# --- layers over the run --------------------------------------------------------------------------


def layers_section(subjects: Sequence[ExperimentPages]) -> Section | None:
    """Measures of every layer over the training; None where nothing was measured."""
    blocks: list[Block] = []
    for subject in subjects:
        panels, table, runs = layer_panels(subject)
        if panels and len(subjects) > 1:
            blocks.append(Heading(subject.label))
        if panels:
            median = f"The median of {runs} runs. " if runs > 1 else ""
            blocks.append(Words(f"{median}Blank where a measure does not apply."))
            blocks += [Pictures(panels), table]
    if not blocks:
        return None
    legend = [f"{title.lower()}, {MEASURES[name]}" for name, (title, _) in LAYER_MEASURES.items()]
    about = f"From the first layer at the top to the last: {'; '.join(legend)}."
    return Section("layers", "Layers over the run", blocks, about)


def layer_panels(subject: ExperimentPages) -> tuple[list[Panel], Table, int]:
    """Heat maps of a subject, a table of the same figures, and the number of runs behind them."""
    measured = [probes for page in subject.pages if (probes := pages.probes_of(page)) is not None]
    measured = [probes for probes in measured if len(probes["step"])]
    table, panels = Table("", [], []), []
    if not measured:
        return panels, table, 0
    layers = [str(name) for name in measured[0]["layers"]]
    length = min(len(probes["step"]) for probes in measured)
    stretches = np.array_split(np.arange(length), min(length, COLUMNS))
    epochs = np.array([measured[0]["epoch"][stretch].mean() for stretch in stretches])
    columns, cells = ["layer"], [[name] for name in layers]
    for name, (title, log) in LAYER_MEASURES.items():
        values = np.stack([probes[name][:length] for probes in measured])
        values = medians(values.reshape(len(measured), -1)).reshape(length, len(layers))
        if np.isnan(values).all() or (log and not (values > 0).any()):
            continue
        drawn = np.stack([medians(values[stretch]) for stretch in stretches])
        alt = f"{title} of {len(layers)} layers over the epochs; the table has figures."
        panels.append(heat_map(title, alt, drawn, epochs, layers, log))
        columns += [f"{title.lower()}, first", "last"]
        for row, first, end in zip(cells, drawn[0], drawn[-1], strict=True):
            row += [figure(first), figure(end)]
    return panels, Table("the layers in figures", columns, cells, folded=True), len(measured)


# --- weights and activations ----------------------------------------------------------------------


def of_networks(
    subjects: Sequence[ExperimentPages],
    networks: Sequence[Network],
    blocks_of: Callable[[Trained], list[Block]],
) -> list[Block]:
    """The blocks of each network, or the reason why there is none."""
    blocks: list[Block] = []
    for subject, net in zip(subjects, networks, strict=True):
        if len(subjects) > 1:
            blocks.append(Heading(subject.label))
        if isinstance(net, str):
            blocks.append(Words(net))
            continue
        if len(subject.pages) > 1:
            blocks.append(Words(f"Of the run with seed {net.page.seed}."))
        try:
            blocks += blocks_of(net)
        except UserError as error:
            blocks.append(Words(str(error)))
    return blocks


def histograms_section(subjects: Sequence[ExperimentPages], networks: Sequence[Network]) -> Section:
    """Weights and activations before and after training."""

    def blocks_of(net: Trained) -> list[Block]:
        panels, table, note = histogram_panels(net, LAYERS // len(subjects))
        notes: list[Block] = [Words(note)] if note else []
        return [*notes, Pictures(panels), table]

    about = (
        "How the numbers of each layer are spread, at the start and in the end. Activations are "
        f"what a layer gives for at most {inspection.EXAMPLES} training examples."
    )
    blocks = of_networks(subjects, networks, blocks_of)
    return Section("histograms", "Weights and activations", blocks, about)


def histogram_panels(net: Trained, most: int) -> tuple[list[Panel], Table, str]:
    """Two panels a layer, the figures of all layers, and what was left out, in words."""
    layers = inspection.layers_of(net)
    most = max(2, most)
    names = [layer.name for layer in layers]
    chosen = names if len(names) <= most else [*names[: most // 2], *names[-(most // 2) :]]
    note = ""
    if len(chosen) < len(layers):
        note = f"Of {len(layers)} layers the first {most // 2} and the last {most // 2} are drawn."
    panels, rows = [], []
    for layer in layers:
        row = [layer.name]
        for what, (start, end) in (("weights", layer.weights), ("activations", layer.activations)):
            pair = [float(np.std(values)) if values.size else np.nan for values in (start, end)]
            row += map(figure, pair)
            if start.size and layer.name in chosen:
                alt = f"{what} of {layer.name}: deviation {pair[0]:.3g} at the start, "
                title = f"{layer.name}: {what}"
                panels.append(histogram(title, f"{alt}{pair[1]:.3g} in the end", start, end))
        zeros = [v.size and float(np.mean(v == 0)) for v in layer.activations]
        rows.append([*row, *(f"{share:.0%}" for share in zeros)])
    columns = ["layer", "weights, deviation at the start", "in the end"]
    columns += ["activations, deviation at the start", "in the end"]
    columns += ["activations that are 0, at the start", "in the end"]
    return panels, Table("the layers in figures", columns, rows, folded=True), note


# --- answers --------------------------------------------------------------------------------------


def answer_blocks(net: Trained) -> list[Block]:
    """The answers of a network: mistakes, residuals, or text."""
    if net.dataset.unit is not None:
        return sample_blocks(net)
    answers = inspection.answers_of(net)
    asked = f"{len(answers.x):,} {SPLITS[answers.split]} rows"
    if len(answers.x) < answers.rows:
        asked = f"the first {asked} of {answers.rows:,}"
    if not net.dataset.classes:
        return value_blocks(net, answers, asked)
    wrong, worst = inspection.worst_mistakes(net, answers)
    blocks: list[Block] = [
        Words(f"{wrong:,} of {asked} are answered wrongly ({wrong / len(answers.x):.2%}).")
    ]
    classes = net.dataset.classes
    if len(classes) <= CLASSES:
        counts = inspection.confusion(net, answers)
        blocks.append(Pictures([confusion_of(counts, classes, wrong, asked)]))
        rows = [[name, *map(str, row)] for name, row in zip(classes, counts, strict=True)]
        caption = "confusion matrix: a row for each class, a column for each answer"
        blocks.append(Table(caption, ["class", *classes], rows, folded=True))
    blocks.append(Heading("The worst mistakes" if wrong else "The least certain answers"))
    return [*blocks, mistakes_block(net, worst)]


def confusion_of(counts: np.ndarray, classes: Sequence[str], wrong: int, asked: str) -> Panel:
    """The confusion matrix, with the most frequent confusion in words."""
    apart = counts * (1 - np.eye(len(counts), dtype=int))
    i, j = divmod(int(apart.argmax()), len(counts))
    most = f"; most often {classes[i]} is taken for {classes[j]}, {apart[i, j]}×" if wrong else ""
    return confusion_panel(f"Confusion matrix: {wrong} of {asked} wrong{most}", counts, classes)


def mistakes_block(net: Trained, worst: Sequence[inspection.WrongAnswer]) -> Block:
    """Examples as images where they are images, else as rows."""
    images = inspection.as_images(net, worst)
    sure = ["" if m.probability is None else f"{m.probability:.1%}" for m in worst]
    if images is not None:
        pictures = []
        for m, share, image in zip(worst, sure, images, strict=True):
            words = f"{m.label}, answered {m.answer}"
            caption = f"{words} {share}".strip()
            pictures.append(Image(f"row {m.row}: {words}", uri=png(image), caption=caption))
        return Pictures(pictures, small=True)
    width = min(8, worst[0].x.size)
    names = list(net.dataset.columns[:width])
    names += [f"input {place + 1}" for place in range(len(names), width)]
    rows = []
    for m, share in zip(worst, sure, strict=True):
        inputs = [figure(float(value)) for value in m.x.ravel()[:width]]
        rows.append([str(m.row), m.label, m.answer, *[share] * any(sure), *inputs])
    columns = ["row", "class", "answer", *["its probability"] * any(sure), *names]
    more = f", the first {width} of {worst[0].x.size} inputs" if worst[0].x.size > width else ""
    return Table(f"rows with the largest loss{more}", columns, rows)


def png(image: np.ndarray) -> str:
    """Pixels as an address that holds them all."""
    pixels = Pixels.fromarray(image)
    pixels.thumbnail((SIDE, SIDE))
    written = io.BytesIO()
    pixels.save(written, "PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(written.getvalue()).decode()}"


def value_blocks(net: Trained, answers: inspection.Answers, asked: str) -> list[Block]:
    """Residuals of a regression."""
    predicted = inspection.predictions(net, answers)
    if predicted is None:
        return [Words(f"The targets of {net.experiment.loss.name} are no values to be met.")]
    wanted, predicted = (inspection.in_unit(net, part) for part in (answers.targets, predicted))
    residuals = (predicted - wanted).ravel()
    deviation = float(np.sqrt(np.mean(np.square(residuals))))
    spread = float(np.std(wanted))
    summary = (
        f"Over {asked} the answers are off by {deviation:.4g} (root of the mean square), on "
        f"average by {np.mean(residuals):+.4g}; the targets themselves vary by {spread:.4g}."
    )
    alt = f"answers and residuals: {summary}"
    panels = residual_panels(wanted, predicted, alt)
    rows = np.argsort(-np.abs(residuals))[:8]
    targets, values = wanted.ravel(), predicted.ravel()
    worst = []
    for r in rows.tolist():
        figures = [figure(float(column[r])) for column in (targets, values, residuals)]
        worst.append([str(r // (residuals.size // len(answers.x))), *figures])
    table = Table("the largest residuals", ["row", "target", "answer", "residual"], worst)
    return [Words(summary), Pictures(panels), table]


def sample_blocks(net: Trained) -> list[Block]:
    """Text that a language model writes."""
    prompt, texts = inspection.samples_of(net)
    how = (
        "The model reads the beginning of the held-out text and goes on with it, drawing "
        f"each character at a temperature of {inspection.TEMPERATURE}."
    )
    written = [
        Code(f"what it writes, {n} of {len(texts)}", text) for n, text in enumerate(texts, 1)
    ]
    return [Words(how), Code("what it reads", prompt), *written]
