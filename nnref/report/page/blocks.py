"""What a report is made of, whatever it is about.

Each kind of record (runs, sweeps, ...) says what it has to say as headlines and sections of these
blocks; the template knows how a block looks, and nothing of what it means. So another kind of
record is a function that returns sections, and no line of HTML. All text is plain: the template
escapes it.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

Tone = Literal["good", "bad", "plain"]


class Headline(NamedTuple):
    """How something ended, in a sentence: the first that a reader sees."""

    tone: Tone
    word: str
    title: str
    sentence: str
    about: str = ""
    facts: Sequence[tuple[str, str]] = ()


class Block:
    """Part of a section; `kind` names the macro of the template that shows it."""

    kind: ClassVar[str]


class Words(Block):
    """A paragraph."""

    kind = "words"

    def __init__(self, text: str):
        self.text = text


class Heading(Block):
    """A title inside a section, where it is about several things."""

    kind = "heading"

    def __init__(self, text: str):
        self.text = text


class Table(Block):
    """Rows of text; the first cell of each names its row."""

    kind = "table"

    def __init__(
        self,
        caption: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        folded: bool = False,
        numbers: bool = True,
        note: str = "",
    ):
        self.caption, self.columns, self.rows = caption, columns, rows
        self.folded = folded  # shown when it is asked for
        self.numbers = numbers  # aligned to the right
        self.note = note  # how to read it


class Code(Block):
    """Text whose spaces and line breaks count."""

    kind = "code"

    def __init__(self, title: str, text: str, *, folded: bool = False):
        self.title, self.text, self.folded = title, text, folded


class Image(NamedTuple):
    """A picture: SVG to stand in the page, or the address of pixels, `data:image/png;...`."""

    alt: str  # what it shows, for those who do not see it
    svg: str = ""
    uri: str = ""
    caption: str = ""


class Pictures(Block):
    """Pictures side by side, as many as there is room for."""

    kind = "pictures"

    def __init__(self, images: Sequence[Image], *, small: bool = False):
        self.images, self.small = images, small


class Line(NamedTuple):
    """One line of a chart; it is shown while all switches that it is tagged with are on."""

    label: str
    values: list[float | None]
    colour: int
    tags: tuple[str, ...] = ()
    dashed: bool = False
    thin: bool = False
    family: str = ""  # thin lines tell the range of the thick one of their family
    low: Sequence[float | None] = ()  # edges of a band around it
    high: Sequence[float | None] = ()


class View(NamedTuple):
    """Lines over a common x; a chart shows one view at a time."""

    label: str
    x: list[float]
    lines: list[Line]
    log: bool = False  # at first; the reader may switch
    x_log: bool = False
    stepped: bool = False  # each value holds since the x before

    @property
    def main(self) -> list[Line]:
        """The thick lines."""
        return [line for line in self.lines if not line.thin]

    def rows(self, most: int = 12) -> list[list[str]]:
        """The thick lines in figures, at some places, the first and the last among them."""
        last = len(self.x) - 1
        places = sorted({round(last * part / (most - 1)) for part in range(most)}) if last else [0]
        return [
            [f"{self.x[p]:,.7g}", *(figure(line.values[p]) for line in self.main)] for p in places
        ]


BAND = "band"  # turns the bands of all lines on and off


class Switch(NamedTuple):
    """Turns the lines with its tag on and off; a colour of -1 is none."""

    tag: str
    label: str
    colour: int = -1


class Switches(NamedTuple):
    """Switches that belong together."""

    legend: str
    switches: Sequence[Switch]
    folded: bool = False


class Chart(Block):
    """Lines that the reader can follow with the pointer, switch on and off, and zoom into."""

    kind = "chart"

    def __init__(
        self,
        alt: str,
        x_label: str,
        views: Sequence[View],
        switches: Sequence[Switches] = (),
        note: str = "",
    ):
        self.alt, self.x_label, self.views = alt, x_label, views
        self.switches, self.note = switches, note

    @property
    def data(self) -> dict[str, Any]:
        """What the script draws."""
        return {"x": self.x_label, "views": [view_data(view) for view in self.views]}


class Section(NamedTuple):
    """A part of a report under a heading."""

    key: str  # for links to it
    title: str
    blocks: Sequence[Block]
    about: str = ""  # how to read it


class Report(NamedTuple):
    """A page: headlines first."""

    title: str
    headlines: Sequence[Headline]
    sections: Sequence[Section]


def view_data(view: View) -> dict[str, Any]:
    lines = [line._asdict() for line in view.lines]
    return view._asdict() | {"lines": lines}


def figure(value: float | None) -> str:
    """A number for people; a dash where there is none."""
    return "–" if value is None or value != value else f"{value:.4g}"
