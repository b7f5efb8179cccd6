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
from typing import Any, NamedTuple

import numpy as np

from nnref.data.prepare import first_five, host_memory
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
QUARTER = re.compile(r"(\d{4})[ :-]?[Qq]([1-4])")
THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?")
COMMA = re.compile(r"[-+]?(\d+|\d{1,3}(\.\d{3})+)?,\d*([eE][-+]?\d+)?")


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        cells: float64 where they are numbers, NaN without one; datetime64 where they are dates,
            NaT without one; else objects, text or None. (rows,)
        spelling: how they are spelled, where that could be read in two ways.
    """

    cells: np.ndarray
    spelling: str = ""

    @property
    def missing(self) -> np.ndarray:
        """Which cells hold nothing, (rows,)."""
        if self.cells.dtype.kind == "O":
            return np.array([cell is None for cell in self.cells], bool)
        return np.isnan(self.cells) if self.cells.dtype.kind == "f" else np.isnat(self.cells)

    @property
    def kind(self) -> str:
        """What the cells are, in a word."""
        return {"f": "number", "M": "date"}.get(self.cells.dtype.kind, "text")


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
        table = columnar(path)
    else:
        table = by_polars(path) if has_polars() else by_csv(path)
    if missing:
        table = {name: without(column, missing) for name, column in table.items()}
    full = np.ones(len(next(iter(table.values())).cells), bool)
    blank = ~full
    for number, column in enumerate(table.values()):
        blank = column.missing if number == 0 else blank & column.missing
        if not blank.any():
            break
    else:
        table = {
            name: column._replace(cells=column.cells[~blank]) for name, column in table.items()
        }
    if not len(next(iter(table.values())).cells):
        raise UserError(f"data.path: {path} has no rows below its header line")
    return table


def without(column: Column, words: Sequence[str]) -> Column:
    """A column whose cells with one of these words hold nothing."""
    if column.kind == "number":
        numbers = as_numbers([word for word in words if as_numbers([word], "")], "")
        found = np.isin(column.cells, list(numbers[0].values()) if numbers else [])
        return column._replace(cells=np.where(found, np.nan, column.cells))
    if column.kind == "text":
        return typed([None if cell in words else cell for cell in column.cells])
    return column


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
            raise UserError(f'data.path: {path} has {names.count(name)} columns called "{name}"')
    if not names:
        raise UserError(f"data.path: {path} has no rows below its header line")
    return names, separator


def by_csv(path: Path) -> Table:
    """The columns of a CSV file, read by the module `csv`."""
    try:
        with text_of(path) as lines:
            names, separator = header_of(path, lines)
            lines.seek(0)
            reader = csv.reader(lines, delimiter=separator, strict=True)
            rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))][1:]
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
            f"{len(names)} of the header, the first in line {ragged[0]}"
        )
    columns = zip(*(row for _, row in rows), strict=True)
    return {n: typed(cells, separator) for n, cells in zip(names, columns, strict=True)}


def by_polars(path: Path) -> Table:
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
    except (UnicodeDecodeError, csv.Error, polars.exceptions.PolarsError):
        return by_csv(path)  # which says what is wrong, and where
    # Of a row that is too short polars makes one with gaps at its end, and quotes may be unequal.
    if not frame.height or frame.width != len(names) or frame[:, -1].null_count():
        return by_csv(path)
    return {name: column_of(frame[name], separator) for name in names}


def column_of(series: Any, separator: str = "") -> Column:
    """A column of a frame."""
    import polars  # pyright: ignore[reportMissingImports]

    if series.dtype.is_numeric():
        return Column(series.cast(polars.Float64).to_numpy())
    if series.dtype in (polars.Boolean, polars.Categorical, polars.Enum):
        series = series.cast(polars.String)
    if series.dtype == polars.String:
        return typed(series.to_list(), separator)
    if series.dtype.is_temporal() and series.dtype != polars.Time:
        if series.dtype == polars.Duration:
            return Column(series.dt.total_microseconds().cast(polars.Float64).to_numpy() / 1e6)
        if getattr(series.dtype, "time_zone", None):
            series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return Column(series.cast(polars.Datetime("us")).to_numpy())
    return Column(np.array([None] * len(series), object), f"{series.dtype}")


def columnar(path: Path) -> Table:
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
    return {name: column_of(frame[name]) for name in frame.columns}


# --- from text to numbers and dates ---------------------------------------------------------------


def typed(cells: Sequence[str | None], separator: str = "") -> Column:
    """Cells of text as numbers where all are, else as dates where all are, else as text.

    A separator other than the comma says that a comma may be a decimal point.
    """
    stripped = {cell: unquoted(cell or "") for cell in dict.fromkeys(cells)}
    words = [word for word in dict.fromkeys(stripped.values()) if word.lower() not in MISSING]
    for reading, nothing in ((as_numbers, np.nan), (as_dates, np.datetime64("NaT", "us"))):
        known = reading(words, separator)
        if known is not None:
            values, spelling = known
            each = {c: values.get(word, nothing) for c, word in stripped.items()}
            dtype = np.float64 if reading is as_numbers else "datetime64[us]"
            return Column(np.array([each[cell] for cell in cells], dtype), spelling)
    each = {c: None if word.lower() in NO_TEXT else word for c, word in stripped.items()}
    if {word.lower() for word in words} <= {"true", "false"}:
        each = {c: word and word.title() for c, word in each.items()}
    text = np.empty(len(cells), object)
    text[:] = [each[cell] for cell in cells]
    return Column(text)


def unquoted(cell: str) -> str:
    """A cell without spaces around it, and without quotes that stood behind them."""
    word = cell.strip()
    return (
        word[1:-1].strip() if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"" else word
    )


def as_numbers(words: Sequence[str], separator: str) -> tuple[dict[str, float], str] | None:
    """Numbers by their words, and how they are spelled; None where a word is no number."""
    with_comma = [word for word in words if "," in word]
    read, spelling = float, ""
    if with_comma and separator in ("", ",") and all(map(THOUSANDS.fullmatch, with_comma)):
        read, spelling = without_thousands, "commas part thousands"
    elif with_comma and all(map(COMMA.fullmatch, with_comma)):
        read, spelling = with_decimal_comma, "decimal comma"
    if any("_" in word for word in words):  # which Python takes for a digit's neighbour
        return None
    try:
        return {word: read(word) for word in words}, spelling
    except ValueError:
        return None


def without_thousands(word: str) -> float:
    """The number of 1,234.5."""
    return float(word.replace(",", ""))


def with_decimal_comma(word: str) -> float:
    """The number of 1.234,5 or 1234,5."""
    return float(word.replace(".", "").replace(",", ".") if "," in word else word)


def as_dates(words: Sequence[str], separator: str) -> tuple[dict[str, Any], str] | None:
    """Dates by their words, and how they are spelled; None where a word is no date."""
    readings = [(iso, "")]
    readings += [
        (lambda word, form=form: datetime.strptime(word, form), told)
        for form, told in FORMATS.items()
    ]
    for read, told in readings:
        try:
            return {word: np.datetime64(read(word), "us") for word in words}, told
        except ValueError:
            continue
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
