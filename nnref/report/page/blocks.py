"""The blocks that a report is made of, whatever it is about.

Each kind of record (runs, sweeps, ...) says what it has to say as headlines and sections of these
blocks; the template knows how a block looks, and nothing of what it means. So another kind of
record is a function that returns sections, and no line of HTML. All text is plain: the template
escapes it.
"""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from nnref.report.plain import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Tone = Literal["good", "bad", "plain"]
WIDTH, HEIGHT = 4.4, 2.7  # inches of a picture: on a phone about as wide as the screen


class Headline(NamedTuple):
    """How something ended, in a sentence: the first that a reader sees."""

    tone: Tone
    word: str
    title: str
    sentence: str
    about: str = ""
    facts: Sequence[tuple[str, str]] = ()


class Block:
    """Part of a section."""

    @property
    def kind(self) -> str:
        """The name of the template's macro that shows it."""
        return type(self).__name__.lower()


@dataclass
class Words(Block):
    """A paragraph."""

    text: str


@dataclass
class Heading(Block):
    """A title inside a section, where it is about several things."""

    text: str


@dataclass
class Table(Block):
    """Rows of text; the first cell of each names its row."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    _: KW_ONLY
    folded: bool = False  # shown when it is asked for
    numbers: bool = True  # aligned to the right
    headless: bool = False  # two columns of words that need no titles
    note: str = ""  # how to read it


@dataclass
class Code(Block):
    """Text whose spaces and line breaks count."""

    title: str
    text: str
    _: KW_ONLY
    folded: bool = False


class Bar(NamedTuple):
    """A value from 0 to 1 as a bar; less is drawn as 0, and its figure says so."""

    label: str
    value: float
    colour: int = 0


@dataclass
class Bars(Block):
    """Values from 0 to 1 by name, to be compared."""

    caption: str
    bars: Sequence[Bar]
    note: str = ""


class Image(NamedTuple):
    """A picture: SVG to stand in the page, or the address of pixels, `data:image/png;...`."""

    alt: str  # what it shows, for those who do not see it
    svg: str = ""
    uri: str = ""
    caption: str = ""


class Panel(NamedTuple):
    """A still picture that matplotlib draws: on the page as SVG, by `nnref plot` into a file."""

    title: str
    alt: str  # what it shows, for those who do not see it
    draw: Callable[["Axes"], None]
    size: tuple[float, float] = (WIDTH, HEIGHT)


@dataclass
class Pictures(Block):
    """Pictures side by side, as many as there is room for."""

    images: Sequence[Image | Panel]
    _: KW_ONLY
    small: bool = False


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


@dataclass
class Chart(Block):
    """Lines that the reader can follow with the pointer, switch on and off, and zoom into."""

    alt: str
    x_label: str
    views: Sequence[View]
    switches: Sequence[Switches] = ()
    note: str = ""

    @property
    def data(self) -> dict[str, Any]:
        """The views as the script reads them."""
        return {"x": self.x_label, "views": plain(self.views)}


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


def figure(value: float | None) -> str:
    """A number for people; a dash where there is none."""
    return "–" if value is None or value != value else f"{value:.4g}"


def joined(reports: Sequence[Report]) -> Report:
    """Several reports on one page."""
    if len(reports) == 1:
        return reports[0]
    sections = [
        section._replace(key=f"{section.key}-{place}", title=f"{section.title}: {report.title}")
        for place, report in enumerate(reports, 1)
        for section in report.sections
    ]
    headlines = [headline for report in reports for headline in report.headlines]
    return Report("; ".join(report.title for report in reports), headlines, sections)
