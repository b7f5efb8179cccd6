"""Encoding: rows of a table as numbers, by what is known of the training rows alone."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from nnref.data.columns import Inputs
from nnref.data.prepare import first_five, refuse_nonfinite
from nnref.data.reading import Column, Table
from nnref.errors import UserError

MOST = 50  # columns of a category; what is rarer shares one
SOME = 2000  # training rows whose median fills new rows, where no training row has a gap
NOTHING = "missing"  # the category of cells that hold nothing

Fill = Literal["median", "mean", "refuse"]
Dates = Literal["cyclic", "parts", "number"]
PLAIN = (
    "inputs",
    "fill",
    "dates",
    "missing",
    "parts",
    "names",
)  # JSON holds them as they are
DAY, YEAR = 86_400.0, 365.2425  # seconds, days


@dataclass
class Encoder:
    """Turns tables into inputs: fitted to training rows, it does the same to all others.

    Args:
        inputs: the columns, and as what each is read.
        fill: what stands for a number that is missing; "refuse" for nothing.
        dates: how a date is told: as days and its places in the year, the week and the day, each
            by sine and cosine; as days and year, month, ...; or as days alone.
        missing: the words that stand for a cell that holds nothing, beside the usual ones.
    """

    inputs: Inputs
    fill: Fill
    dates: Dates
    missing: tuple[str, ...] = ()
    parts: dict[str, list[str]] = field(default_factory=dict)  # of each date, those that vary
    imputer: Any = None  # of scikit-learn
    one_hot: Any = None
    names: list[str] = field(default_factory=list)  # of the columns of the result
    scaled: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))  # which are numbers

    def named(self, kind: str) -> list[str]:
        """The columns that are read as one kind."""
        return [name for name, each in self.inputs.items() if each == kind]

    def fit(self, table: Table, rows: np.ndarray) -> np.ndarray:
        """Learn from the training rows what fills gaps, which categories there are, what varies.

        Returns:
            All rows of the table as inputs, as a call gives them.

        Raises:
            UserError: for a number that is missing where none may be.
        """
        from sklearn.impute import SimpleImputer
        from sklearn.preprocessing import OneHotEncoder

        for name in self.named("date"):
            every = parts_of(table[name].cells[rows], self.dates)
            moving = [part for part, v in every.items() if np.nanmax(v) > np.nanmin(v)]
            self.parts[name] = [p for p in every if p in moving or p == "days"]
        (numbers, gaps), names = self.numbers(table), self.number_names()
        if gaps.any() and self.fill == "refuse":
            told = [f"{names[c]}: {gaps[:, c].sum()}" for c in np.flatnonzero(gaps.any(axis=0))]
            raise UserError(
                f"data: {len(told)} columns lack numbers ({first_five(told)}); write "
                '"fill": "median" or "mean", or fill them in the file'
            )
        missing = np.flatnonzero(gaps[rows].any(axis=0)) if gaps.any() else []
        if names and self.fill != "refuse":
            filler = SimpleImputer(strategy=self.fill, add_indicator=True, keep_empty_features=True)
            # Where nothing is missing, new rows are filled by what some training rows say.
            self.imputer = filler.fit(numbers[rows if len(missing) else rows[:SOME]])
        self.names = names + [f"{names[c]} missing" for c in missing]
        self.scaled = np.arange(len(self.names)) < len(names)
        categories = self.named("category")
        if categories:
            self.one_hot = OneHotEncoder(
                handle_unknown="infrequent_if_exist", max_categories=MOST, sparse_output=False
            ).fit(self.texts(table)[rows])
            made = [f"{n}={each}" for n, known in self.known().items() for each in known]
            self.names += made
            self.scaled = np.concatenate([self.scaled, np.zeros(len(made), bool)])
        return self.encoded(table, numbers, gaps)

    def known(self) -> dict[str, list[str]]:
        """The categories of each column that have a column of their own, and one for the rest."""
        known = {}
        lists = zip(self.one_hot.categories_, self.one_hot.infrequent_categories_, strict=True)
        for name, (every, rare) in zip(self.named("category"), lists, strict=True):
            rare = [] if rare is None else rare.tolist()
            own = [each for each in every.tolist() if each not in rare]
            known[name] = own + (["others"] if rare else [])
        return known

    def number_names(self) -> list[str]:
        """The names of numbers and of the parts of dates."""
        dates = [f"{name}: {part}" for name, parts in self.parts.items() for part in parts]
        return self.named("number") + dates

    def numbers(self, table: Table) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and parts of dates, (rows, columns), and which are missing and NaN.

        Where none is, the second has no rows.

        Raises:
            UserError: for infinite numbers, and for text among numbers.
        """
        columns = [number_cells(name, table[name]) for name in self.named("number")]
        for name, parts in self.parts.items():
            if table[name].kind != "date" and not table[name].missing.all():
                raise UserError(f'"{name}" holds cells that are no dates')
            cells = table[name].cells
            every = parts_of(cells.astype("datetime64[us]"), self.dates)
            columns += [every[part] for part in parts]
        rows = len(next(iter(table.values())).cells)
        numbers = np.column_stack(columns) if columns else np.zeros((rows, 0))
        if np.isfinite(numbers).all():  # one pass: each takes a twentieth of the time of reading
            return numbers, np.zeros((0, numbers.shape[1]), bool)
        gaps = np.isnan(numbers)
        refuse_nonfinite("the table", "inputs", np.where(gaps, 0, numbers), self.number_names())
        return numbers, gaps

    def texts(self, table: Table) -> np.ndarray:
        """Categories as text, (rows, columns)."""
        return np.stack([text_cells(table[name]) for name in self.named("category")], axis=1)

    def __call__(self, table: Table) -> np.ndarray:
        """Rows as inputs, float64 (rows, columns), before they are scaled; errors of `numbers`."""
        return self.encoded(table, *self.numbers(table))

    def encoded(self, table: Table, numbers: np.ndarray, gaps: np.ndarray) -> np.ndarray:
        """Numbers with their gaps filled, and beside them the categories."""
        names = self.number_names()
        if gaps.any() and self.imputer is None:
            missing = [names[c] for c in np.flatnonzero(gaps.any(axis=0))]
            raise UserError(
                f'numbers are missing in {first_five(missing)}, and "fill" refuses that'
            )
        if gaps.any() or len(self.names) > len(names):
            numbers = numbers if self.imputer is None else self.imputer.transform(numbers)
        if self.one_hot is None:
            return numbers
        import warnings

        with warnings.catch_warnings():  # of unknown categories: `told` says it with their names
            warnings.simplefilter("ignore", UserWarning)
            return np.column_stack([numbers, self.one_hot.transform(self.texts(table))])

    def to_json(self) -> dict[str, Any]:
        """All that is known of the training rows, as plain values."""
        known = {name: getattr(self, name) for name in PLAIN}
        if self.imputer is not None:
            known["filled"] = self.imputer.statistics_.tolist()
            known["gaps"] = self.imputer.indicator_.features_.tolist()
        if self.one_hot is not None:
            rare = self.one_hot.infrequent_categories_
            known["categories"] = [each.tolist() for each in self.one_hot.categories_]
            known["rare"] = [[] if each is None else each.tolist() for each in rare]
        return known | {"scaled": self.scaled.tolist()}

    @classmethod
    def from_json(cls, known: dict[str, Any]) -> "Encoder":
        """The encoder of `to_json`: fitted to a few rows that say the same as those of training."""
        from sklearn.impute import SimpleImputer
        from sklearn.preprocessing import OneHotEncoder

        made = cls(**{name: known[name] for name in PLAIN}, scaled=np.array(known["scaled"], bool))
        if "filled" in known:
            rows = np.array([known["filled"]] * 2, np.float64)
            rows[1, known["gaps"]] = np.nan
            filler = SimpleImputer(strategy=made.fill, add_indicator=True, keep_empty_features=True)
            made.imputer = filler.fit(rows)
        if "categories" in known:
            columns = [
                [each for each in every for _ in range(1 if each in rare else 2)]
                for every, rare in zip(known["categories"], known["rare"], strict=True)
            ]
            most = max(map(len, columns))
            often = [next(each for each in column if column.count(each) > 1) for column in columns]
            full = [c + [each] * (most - len(c)) for c, each in zip(columns, often, strict=True)]
            made.one_hot = OneHotEncoder(
                handle_unknown="infrequent_if_exist", min_frequency=2, sparse_output=False
            ).fit(np.array(full, object).T)
        return made

    def doubts(self, table: Table) -> list[str]:
        """What is strange about new rows: gaps, and categories that no training row had."""
        told = []
        gaps = {n: int(table[n].missing.sum()) for n in self.inputs if self.inputs[n] != "category"}
        named = [f"{name}: {count}" for name, count in gaps.items() if count]
        if named:
            told.append(
                f"cells are missing in {first_five(named)}; filled by the {self.fill} of training"
            )
        for place, name in enumerate(self.named("category")):
            known = set(self.one_hot.categories_[place].tolist())
            new = sorted({cell for cell in text_cells(table[name]) if cell not in known})
            if new:
                told.append(
                    f"{name}: {first_five(new)} was in no training row, and counts as none that "
                    "was, or as the rare ones"
                )
        return told


def number_cells(name: str, column: Column) -> np.ndarray:
    """The numbers of a column.

    Raises:
        UserError: for one of text or of dates.
    """
    if column.kind != "number" and not column.missing.all():
        bad = next(cell for cell in column.cells if cell is not None)
        raise UserError(f'in the column {name} "{bad}" is no number, and such were trained on')
    return column.cells if column.kind == "number" else np.full(len(column.cells), np.nan)


def text_cells(column: Column) -> np.ndarray:
    """Cells as the names of categories, objects (rows,)."""
    if column.kind == "text":
        made = [NOTHING if cell is None else cell for cell in column.cells]
    else:
        made = [NOTHING if cell != cell else in_short(cell) for cell in column.cells]
    cells = np.empty(len(made), object)
    cells[:] = made
    return cells


def in_short(cell: Any) -> str:
    """A number without a point where it is whole; a date as it is."""
    return str(int(cell)) if isinstance(cell, float) and cell == int(cell) else str(cell)


def parts_of(cells: np.ndarray, how: Dates) -> dict[str, np.ndarray]:
    """The numbers that tell dates, by name, with NaN for those that are missing.

    Days are since 1970. Sine and cosine put the last day of a year beside the first one.
    """
    missing = np.isnat(cells)
    whole = np.where(missing, np.datetime64(0, "us"), cells)
    days = whole.astype(np.int64) / (1e6 * DAY)
    dates, years = whole.astype("datetime64[D]"), whole.astype("datetime64[Y]")
    of_year = (dates - years).astype(np.int64)
    of_week = (dates.astype(np.int64) + 3) % 7  # the first day of 1970 was a Thursday
    of_day = days - np.floor(days)
    parts = {"days": days}
    if how == "cyclic":
        for name, turns in (("year", of_year / YEAR), ("week", of_week / 7), ("day", of_day)):
            parts |= {f"{name} sin": np.sin(2 * np.pi * turns)}
            parts |= {f"{name} cos": np.cos(2 * np.pi * turns)}
    elif how == "parts":
        months = whole.astype("datetime64[M]").astype(np.int64) % 12 + 1
        parts |= {"year": years.astype(np.int64) + 1970, "month": months, "weekday": of_week}
        parts |= {"day": (dates - whole.astype("datetime64[M]")).astype(np.int64) + 1}
        parts |= {"hour": of_day * 24}
    return {name: np.where(missing, np.nan, part) for name, part in parts.items()}
