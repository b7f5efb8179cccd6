"""Reading: the columns of a table as numbers, text or dates, from CSV, Parquet or Arrow.

Polars reads where it is installed, the `csv` module where it is not: ten times slower, and to the
same columns.
"""

import csv
import gzip
import importlib.util
import io
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from nnref.data.prepare import first_five, host_memory, warn
from nnref.errors import UserError, nearest

MISSING = {"", "na", "n/a", "nan", "null", "none", "?", "-"}
"""How tables spell a cell without a number or a date, in lower case."""
NO_TEXT = MISSING - {"none", "-"}
"""How they spell a cell without text: "none" is a category of many."""
SEPARATORS = ",;\t|"
TEXTS, COLUMNAR = (".csv", ".tsv", ".txt"), (".parquet", ".arrow", ".feather")
FORMATS = {  # of dates beside ISO 8601, and how they are told
    "%Y-%m": "",
    "%Y/%m/%d": "",
    "%Y/%m/%d %H:%M": "",
    "%Y/%m/%d %H:%M:%S": "",
    "%d.%m.%Y": "day.month.year",
    "%d.%m.%Y %H:%M": "day.month.year",
    "%m/%d/%Y": "month/day/year",
    "%d/%m/%Y": "day/month/year",
    "%m/%d/%y": "month/day/year",
    "%d/%m/%y": "day/month/year",
    "%m/%d/%Y %H:%M": "month/day/year",
    "%d/%m/%Y %H:%M": "day/month/year",
    "%b %d %Y": "",
    "%b %d, %Y": "",
    "%d-%b-%Y": "",
    "%d-%b-%y": "",
    "%d %b %Y": "",
    "%B %d, %Y": "",
    "%d %B %Y": "",
}
PLAIN_DATE = re.compile(
    r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{3}|[.][0-9]{6})?)?)?"
)
QUARTER = re.compile(r"(\d{4})[ :-]?[Qq]([1-4])")
THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?")
COMMA = re.compile(r"[-+]?(\d+|\d{1,3}(\.\d{3})+)?,\d*([eE][-+]?\d+)?")


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        cells: float64 where they are numbers, NaN without one; datetime64 where they are dates,
            NaT without one; where they are text, the place of each in `words`, -1 without one.
            (rows,)
        spelling: how they are spelled, where that could be read in two ways.
        words: the different texts; () for numbers and dates.
    """

    cells: np.ndarray
    spelling: str = ""
    words: tuple[str, ...] = ()

    @property
    def unread(self) -> bool:
        """Whether the cells are of a type that no network reads from a table, as lists are."""
        return self.kind == "text" and bool(self.spelling)

    @property
    def missing(self) -> np.ndarray:
        """Which cells hold nothing, (rows,)."""
        if self.kind == "text":
            return self.cells < 0
        return np.isnan(self.cells) if self.kind == "number" else np.isnat(self.cells)

    @property
    def gaps(self) -> int:
        """How many cells hold nothing. A finite sum tells in a third of the time that none does."""
        whole = self.kind == "number" and np.isfinite(self.cells.sum())
        return 0 if whole else int(self.missing.sum())

    @property
    def kind(self) -> str:
        """What the cells are, in a word."""
        return {"f": "number", "M": "date"}.get(self.cells.dtype.kind, "text")

    def texts(self, nothing: str | None = None) -> np.ndarray:
        """The cells of a column of text as objects, `nothing` where they hold none, (rows,)."""
        words = np.array([*self.words, nothing], object)
        return words[self.cells]

    @property
    def counts(self) -> dict[str, int]:
        """How often each of the words stands in a cell, of those that do."""
        counts = np.bincount(self.cells[self.cells >= 0], minlength=len(self.words))
        return {word: int(n) for word, n in zip(self.words, counts, strict=True) if n}

    def at(self, rows: Any) -> "Column":
        """The column of some rows."""
        return self._replace(cells=self.cells[rows])


Table = dict[str, Column]


def read_table(path: Path, missing: Sequence[str] = ()) -> Table:
    """The columns of a table by name, without rows that hold nothing.

    Args:
        path: the file.
        missing: further words, or numbers, that stand for a cell that holds nothing.

    Raises:
        UserError: for a file that is no table with a header line.
    """
    if path.suffix.lower() in COLUMNAR:
        table = columnar(path, missing)
    else:
        table = (by_polars if has_polars() else by_csv)(path, missing)
    if missing:
        table = {name: without(column, missing) for name, column in table.items()}
    blank = np.ones(len(next(iter(table.values())).cells), bool)
    for column in table.values():
        blank &= column.missing
        if not blank.any():
            break
    else:
        table = {name: column.at(~blank) for name, column in table.items()}
        if blank[: np.flatnonzero(~blank).max(initial=0)].any():
            warn(
                f"data: {blank.sum()} of {len(blank)} rows of {path} hold nothing, the first is "
                f"row {blank.argmax() + 1}; they are left out"
            )
    if not len(next(iter(table.values())).cells):
        raise UserError(f"data.path: {path} has no rows below its header line")
    return table


def without(column: Column, words: Sequence[str]) -> Column:
    """A column of numbers that holds nothing where it holds one of these; others as they are."""
    if column.kind != "number":
        return column
    numbers = [known[0][0] for word in words if (known := as_numbers([word], ""))]
    return column._replace(cells=np.where(np.isin(column.cells, numbers), np.nan, column.cells))


def has_polars() -> bool:
    """Whether polars is installed."""
    return importlib.util.find_spec("polars") is not None


# --- CSV ------------------------------------------------------------------------------------------


def text_of(path: Path) -> io.TextIOBase:
    """A file of text, unpacked where it is packed, which may fill half of the memory."""
    memory = host_memory()
    if path.suffix.lower() != ".gz":
        return path.open(newline="", encoding="utf-8-sig")
    try:
        with gzip.open(path) as packed:
            content = packed.read(memory // 2 + 1)
    except (gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"data.path: {path} is damaged: {error}") from None
    if len(content) > memory // 2:
        raise UserError(f"data.path: {path} unpacks to more than half of the memory")
    return io.TextIOWrapper(io.BytesIO(content), newline="", encoding="utf-8-sig")


def header_of(path: Path, lines: io.TextIOBase) -> tuple[list[str], str]:
    """The names in the header line, and what separates cells."""
    first = re.sub(r'"[^"]*"', "", lines.readline())
    lines.seek(0)
    # Spreadsheets write semicolons or tabs where the comma is the decimal point.
    separator = max(SEPARATORS, key=first.count)
    if separator not in first and " " in first.strip():
        separator = " "
    row = next(csv.reader(lines, delimiter=separator, strict=True), [])
    names = [unquoted(name) or f"column {place}" for place, name in enumerate(row, 1)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f'data.path: {path} has {names.count(name)} columns called "{name}"; give each '
                "its own name in the header line"
            )
    if not names:
        raise UserError(f"data.path: {path} has no rows below its header line")
    return names, separator


def by_csv(path: Path, missing: Sequence[str] = ()) -> Table:
    """The columns of a CSV file, read by the module `csv`."""
    try:
        with text_of(path) as lines:
            names, separator = header_of(path, lines)
            lines.seek(0)
            reader = csv.reader(lines, delimiter=separator, strict=True)
            rows = [
                (reader.line_num, row)
                for row in reader
                if any(map(str.strip, row)) or len(row) == len(names) > 1
            ][1:]
    except UnicodeDecodeError as error:
        raise UserError(
            f"data.path: {path} is no UTF-8 text (byte {error.start}); save it as CSV in UTF-8"
        ) from None
    except csv.Error as error:
        raise UserError(f"data.path: {path} is no readable table: {error}") from None
    if not rows:
        raise UserError(f"data.path: {path} has no rows below its header line")
    ragged = [number for number, row in rows if len(row) != len(names)]
    if ragged:
        raise UserError(
            f"data.path: {len(ragged)} rows of {path} have another number of cells than the "
            f"{len(names)} of the header, the first in line {ragged[0]}; correct these lines: a "
            f"cell that holds {'a space' if separator == ' ' else repr(separator)} stands in quotes"
        )
    columns = zip(*(row for _, row in rows), strict=True)
    return {n: typed(cells, separator, missing) for n, cells in zip(names, columns, strict=True)}


def by_polars(path: Path, missing: Sequence[str] = ()) -> Table:
    """The columns of a CSV file, read by polars."""
    import polars  # pyright: ignore[reportMissingImports]

    try:
        with text_of(path) as lines:
            names, separator = header_of(path, lines)
            packed = lines.buffer if path.suffix.lower() == ".gz" else None  # type: ignore
            if packed is not None:
                packed.seek(0)
            source: Any = packed or path
            how: dict[str, Any] = {
                "separator": separator,
                "new_columns": names,
                "infer_schema_length": 1000,
            }
            try:
                frame = polars.read_csv(source, **how)
            except polars.exceptions.ComputeError:  # a cell further down is no number
                if packed is not None:
                    packed.seek(0)
                how["infer_schema_length"] = 0
                frame = polars.read_csv(source, **how)
            # Of a row that is too short polars makes one with gaps at its end.
            sound = frame.height and frame.width == len(names)
            if sound and frame[:, -1].null_count():
                sound = has_all_cells(lines.buffer, separator, frame)  # type: ignore
    except (UnicodeDecodeError, csv.Error, polars.exceptions.PolarsError):
        return by_csv(path, missing)  # which says what is wrong, and where
    return columns_of(frame, separator, missing) if sound else by_csv(path, missing)


def has_all_cells(content: BinaryIO, separator: str, frame: Any) -> bool:
    """Whether a file without quotes has as many separators as so many rows and columns need.

    A row that is too long is none that polars reads.
    """
    content.seek(0)
    count = 0
    while block := content.read(2**20):
        if b'"' in block:
            return False
        count += block.count(separator.encode())
    return count == (frame.height + 1) * (frame.width - 1)


def columns_of(frame: Any, separator: str, missing: Sequence[str]) -> Table:
    """The columns of a frame, of which none is left: a large table is not held twice."""
    names = frame.columns
    return {name: column_of(frame.drop_in_place(name), separator, missing) for name in names}


def column_of(series: Any, separator: str, missing: Sequence[str]) -> Column:
    """A column of a frame."""
    import polars  # pyright: ignore[reportMissingImports]

    if series.dtype.is_numeric():
        return Column(series.cast(polars.Float64).to_numpy())
    if series.dtype in (polars.Boolean, polars.Categorical, polars.Enum):
        series = series.cast(polars.String)
    if series.dtype == polars.String:
        return column_of_text(series, separator, missing)
    if series.dtype.is_temporal():
        if series.dtype == polars.Time:  # of a day, in seconds
            return Column(series.to_physical().cast(polars.Float64).to_numpy() / 1e9)
        if series.dtype == polars.Duration:
            return Column(series.dt.total_microseconds().cast(polars.Float64).to_numpy() / 1e6)
        if getattr(series.dtype, "time_zone", None):
            series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return Column(series.cast(polars.Datetime("us")).to_numpy())
    return Column(np.full(len(series), -1), f"{series.dtype}")


def column_of_text(series: Any, separator: str, missing: Sequence[str]) -> Column:
    """A column of a frame whose cells are text, as `typed` has it."""
    import polars  # pyright: ignore[reportMissingImports]

    numbers = series.cast(polars.Float64, strict=False)
    others = series.filter(numbers.is_null()).drop_nulls().unique()
    if len(others) < len(series) and all(is_nothing(unquoted(word), missing) for word in others):
        return Column(numbers.to_numpy())
    first = series.drop_nulls().head(1)
    if all(map(PLAIN_DATE.fullmatch, first)) and plain(series):
        dates = plain_dates(series.to_list())
        if dates is not None:
            return Column(dates)
    different = series.drop_nulls().unique(maintain_order=True)
    if len(different) > len(series) / 2:
        return typed(series.to_list(), separator, missing)
    places = series.cast(polars.Enum(different)).to_physical().cast(polars.Int64).fill_null(-1)
    return typed_words([*different, None], places.to_numpy(), separator, missing)


def plain(series: Any) -> bool:
    """Whether all cells of a column of a frame are dates as ISO 8601 has them."""
    return series.drop_nulls().str.contains(f"^(?:{PLAIN_DATE.pattern})$").all()


def columnar(path: Path, missing: Sequence[str] = ()) -> Table:
    """The columns of a Parquet or Arrow file."""
    if not has_polars():
        raise UserError(
            f'data.path: {path} is read by polars; install it: pip install "nnref[tables]"'
        )
    import polars  # pyright: ignore[reportMissingImports]

    memory = host_memory()
    try:
        if path.suffix.lower() == ".parquet":
            lazy = polars.scan_parquet(path)
            rows = lazy.select(polars.len()).collect().item()
            size = rows * len(lazy.collect_schema()) * 8
            if size > memory / 2:
                raise UserError(
                    f"data.path: {path} takes {size / 2**30:,.1f} GB, and the memory is "
                    f"{memory / 2**30:,.1f} GB; save fewer rows or columns"
                )
            frame = lazy.collect()
        else:
            with path.open("rb") as content:
                stream = content.read(6) != b"ARROW1"
            frame = polars.read_ipc_stream(path) if stream else polars.read_ipc(path)
    except polars.exceptions.PolarsError as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"data.path: {path} is no readable table: {first}") from None
    if not frame.height:
        raise UserError(f"data.path: {path} has no rows")
    return columns_of(frame, "", missing)


# --- from text to numbers and dates ---------------------------------------------------------------


def typed(cells: Sequence[str | None], separator: str = "", missing: Sequence[str] = ()) -> Column:
    """Cells of text as numbers where all are, else as dates where all are, else as text.

    A separator other than the comma says that a comma may be a decimal point.
    """
    places: dict[str | None, int] = {}
    each = np.array([places.setdefault(cell, len(places)) for cell in cells], np.intp)
    return typed_words(list(places), each, separator, missing)


def typed_words(
    words: Sequence[str | None], places: np.ndarray, separator: str, missing: Sequence[str]
) -> Column:
    """A column as `typed` has it, of the words that stand in it and the place of each cell's."""
    words = [unquoted(word or "") for word in words]
    held = np.array([not is_nothing(word, missing) for word in words], bool)
    present = [word for word, holds in zip(words, held, strict=True) if holds]
    for reading, nothing in ((as_numbers, np.nan), (as_dates, np.datetime64("NaT", "us"))):
        known = reading(present, separator)
        if known is not None:
            values = np.full(len(words), nothing)
            values[held] = known[0]
            return Column(values[places], known[1])
    truth = {word.lower() for word in present} <= {"true", "false"}
    texts: dict[str, int] = {}
    of_word = np.full(len(words), -1)
    for place, word in enumerate(words):
        if word.lower() not in NO_TEXT and word not in missing:
            of_word[place] = texts.setdefault(word.title() if truth else word, len(texts))
    return Column(of_word[places], words=tuple(texts))


def is_nothing(word: str, missing: Sequence[str]) -> bool:
    """Whether a word says that there is no number and no date."""
    return word.lower() in MISSING or word in missing


def unquoted(cell: str) -> str:
    """A cell without spaces around it, and without quotes that stood behind them."""
    word = cell.strip()
    return (
        word[1:-1].strip() if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"" else word
    )


def as_numbers(words: Sequence[str], separator: str) -> tuple[list[float], str] | None:
    """Words as numbers, and how they are spelled; None where a word is no number."""
    with_comma = [word for word in words if "," in word]
    read, spelling = float, ""
    if with_comma and separator in ("", ",") and all(map(THOUSANDS.fullmatch, with_comma)):
        read, spelling = without_thousands, "commas part thousands"
    elif with_comma and all(map(COMMA.fullmatch, with_comma)):
        read, spelling = with_decimal_comma, "decimal comma"
    if any("_" in word for word in words):  # which Python takes for a digit's neighbour
        return None
    try:
        return [read(word) for word in words], spelling
    except ValueError:
        return None


def without_thousands(word: str) -> float:
    """The number of 1,234.5."""
    return float(word.replace(",", ""))


def with_decimal_comma(word: str) -> float:
    """The number of 1.234,5 or 1234,5."""
    return float(word.replace(".", "").replace(",", ".") if "," in word else word)


def as_dates(words: Sequence[str], separator: str) -> tuple[np.ndarray, str] | None:
    """Words as dates, and how they are spelled; None where a word is no date."""
    if all(map(PLAIN_DATE.fullmatch, words)):
        dates = plain_dates(words)
        return None if dates is None else (dates, "")
    readings = [(iso, "")]
    readings += [
        (lambda word, form=form: datetime.strptime(word, form), layout)
        for form, layout in FORMATS.items()
    ]
    for read, layout in readings:
        try:
            return np.array([read(word) for word in words], "datetime64[us]"), layout
        except ValueError:
            continue
    return None


def plain_dates(words: Sequence[str | None]) -> np.ndarray | None:
    """Dates as ISO 8601 has them, twenty times as fast as one by one."""
    try:
        return np.array(words, "datetime64[us]")
    except ValueError:  # the 31st of April
        return None


def iso(word: str) -> datetime:
    """A date and time of ISO 8601, in universal time where it says its zone; or a quarter."""
    quarter = QUARTER.fullmatch(word)
    if quarter:
        return datetime(int(quarter[1]), 3 * int(quarter[2]) - 2, 1)
    if len(word) < 8:
        raise ValueError(word)
    moment = datetime.fromisoformat(word)
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def refuse_unknown(path: str, names: Sequence[str], table: Table) -> None:
    """Raise for names that are no columns."""
    for name in names:
        if name not in table:
            raise UserError(
                f'data.{path}: there is no column "{name}"; the columns are '
                f"{first_five(list(table))}{nearest(name, list(table))}"
            )


def refuse_unread(path: str, names: Sequence[str], table: Table) -> None:
    """Raise for columns whose cells are of a type that is not read."""
    for name in names:
        if table[name].unread:
            raise UserError(
                f'data.{path}: the cells of "{name}" are of the type {table[name].spelling}, which '
                "is not read from a table; save each of their numbers in a column of its own, or "
                'all of them as the array "x" of a .npz'
            )
