"""Encoding: rows of a table as numbers, by what is known of the training rows alone."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from nnref.data.columns import Inputs
from nnref.data.prepare import first_five, refuse_nonfinite
from nnref.data.reading import Column, Table
from nnref.data.trees import Layout, layout_of
from nnref.errors import UserError

MOST = 50  # categories that have a column each; of more, each has a number and a vector
RARE = 2  # training rows that a category needs for a number of its own
SOME = 2000  # training rows whose median fills new rows, where no training row has a gap
NOTHING = "missing"  # the category of cells that hold nothing

Fill = Literal["median", "mean", "refuse"]
Dates = Literal["cyclic", "parts", "number"]
# JSON holds them as they are.
PLAIN = ("inputs", "fill", "dates", "missing", "embedding", "parts", "names")
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
        embedding: how long the vector of a category is, in columns that have more than `MOST`; None
            for twice the fourth root of their number, 0 for columns of 0 and 1 as of few.

    A column of many categories becomes the number of its category, which the network looks up; such
    columns stand in front of all others. What is rare shares the last number with what is unknown.
    """

    inputs: Inputs
    fill: Fill
    dates: Dates
    missing: tuple[str, ...] = ()
    embedding: int | None = None
    parts: dict[str, list[str]] = field(default_factory=dict)  # of each date, those that vary
    imputer: Any = None  # of scikit-learn
    one_hot: Any = None
    numbered: dict[str, Any] = field(default_factory=dict)  # of each column of many categories
    names: list[str] = field(default_factory=list)  # of the columns of the result
    scaled: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))  # which are numbers

    def named(self, kind: str) -> list[str]:
        """The columns that are read as one kind."""
        return [name for name, each in self.inputs.items() if each == kind]

    @property
    def few(self) -> list[str]:
        """The columns of categories that have a column of 0 and 1 each."""
        return [name for name in self.named("category") if name not in self.numbered]

    @property
    def vectors(self) -> dict[str, tuple[int, int]]:
        """The shape (categories, width) of the matrix of each column of many categories."""
        counts = {name: len(each.categories_[0]) + 1 for name, each in self.numbered.items()}
        return {name: (n, self.embedding or usual_width(n)) for name, n in counts.items()}

    @property
    def layout(self) -> Layout | None:
        """How numbers of categories and all other columns lie in a row; None without the first."""
        if not self.numbered:
            return None
        several: dict[str, np.ndarray] = {"categories": np.zeros((1, len(self.numbered)), np.int32)}
        if others := len(self.names) - len(self.numbered):
            several["numbers"] = np.zeros((1, others), np.float32)
        return layout_of(several, "a row of the table")

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
        self.number_categories(table, rows)
        numbered, made = list(self.numbered), []
        if self.few:
            self.one_hot = OneHotEncoder(
                handle_unknown="infrequent_if_exist", max_categories=MOST, sparse_output=False
            ).fit(self.texts(table)[rows])
            made = [f"{n}={each}" for n, known in self.known().items() for each in known]
        self.names = [*numbered, *names, *(f"{names[c]} missing" for c in missing), *made]
        self.scaled = np.zeros(len(self.names), bool)
        self.scaled[len(numbered) : len(numbered) + len(names)] = True
        return self.encoded(table, numbers, gaps)

    def number_categories(self, table: Table, rows: np.ndarray) -> None:
        """Give a number to each category that comes back, in columns that have too many."""
        for name in self.named("category") if self.embedding != 0 else ():
            known, counts = np.unique(text_cells(table[name])[rows], return_counts=True)
            if len(known) > MOST:
                self.numbered[name] = numbering(known[counts >= RARE].tolist())

    def known(self) -> dict[str, list[str]]:
        """The categories of each column that have a column of their own, and one for the rest."""
        known = {}
        lists = zip(self.one_hot.categories_, self.one_hot.infrequent_categories_, strict=True)
        for name, (every, rare) in zip(self.few, lists, strict=True):
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
        return np.stack([text_cells(table[name]) for name in self.few], axis=1)

    def __call__(self, table: Table) -> np.ndarray:
        """Rows as inputs, float64 (rows, columns), before they are scaled; errors of `numbers`."""
        return self.encoded(table, *self.numbers(table))

    def encoded(self, table: Table, numbers: np.ndarray, gaps: np.ndarray) -> np.ndarray:
        """Numbers of categories, numbers with their gaps filled, and columns of categories."""
        names = self.number_names()
        if gaps.any() and self.imputer is None:
            missing = [names[c] for c in np.flatnonzero(gaps.any(axis=0))]
            raise UserError(
                f'numbers are missing in {first_five(missing)}, and "fill" refuses that'
            )
        if gaps.any() or len(self.names) > len(names):
            numbers = numbers if self.imputer is None else self.imputer.transform(numbers)
        parts = [self.numbers_of(name, table[name]) for name in self.numbered]
        if self.one_hot is None and not parts:
            return numbers
        parts.append(numbers)
        import warnings

        with warnings.catch_warnings():  # of unknown categories: `doubts` says it with their names
            warnings.simplefilter("ignore", UserWarning)
            if self.one_hot is not None:
                parts.append(self.one_hot.transform(self.texts(table)))
        return np.column_stack(parts)

    def numbers_of(self, name: str, column: Column) -> np.ndarray:
        """The number of the category of each row, the last one for what is rare or unknown."""
        encoder = self.numbered[name]
        numbers = encoder.transform(text_cells(column)[:, None])[:, 0]
        return np.where(numbers < 0, len(encoder.categories_[0]), numbers)

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
        numbered = self.numbered.items()
        known["numbered"] = {name: each.categories_[0].tolist() for name, each in numbered}
        return known | {"scaled": self.scaled.tolist()}

    @classmethod
    def from_json(cls, known: dict[str, Any]) -> "Encoder":
        """The encoder of `to_json`: fitted to a few rows that say the same as those of training."""
        from sklearn.impute import SimpleImputer
        from sklearn.preprocessing import OneHotEncoder

        plain = {name: known[name] for name in PLAIN if name in known}
        made = cls(**plain, scaled=np.array(known["scaled"], bool))
        numbered = known.get("numbered", {}).items()
        made.numbered = {name: numbering(categories) for name, categories in numbered}
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
        every = (
            {}
            if self.one_hot is None
            else dict(zip(self.few, self.one_hot.categories_, strict=True))
        )
        for name in self.named("category"):
            known = set(every[name] if name in every else self.numbered[name].categories_[0])
            new = sorted({cell for cell in text_cells(table[name]) if cell not in known})
            where, then = "no training row", "none that was, or as the rare ones"
            if name in self.numbered:
                where, then = f"fewer than {RARE} training rows", "the rare ones do"
            if new:
                told.append(f"{name}: {first_five(new)} was in {where}, and counts as {then}")
        return told


def numbering(categories: list[str]) -> Any:
    """What gives each of some categories its number, and all others -1."""
    from sklearn.preprocessing import OrdinalEncoder

    kept = np.array(categories, object)
    numbers = OrdinalEncoder(
        categories=[kept],  # pyright: ignore[reportArgumentType]
        handle_unknown="use_encoded_value",
        unknown_value=-1,
    )
    return numbers.fit(kept[:1, None])


def usual_width(categories: int) -> int:
    """How long a vector is by default: twice the fourth root of the number of categories."""
    return round(2 * categories**0.25)


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
