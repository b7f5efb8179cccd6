"""Encoding: rows of a table as numbers, by what is known of the training rows alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from nnref.data.columns import Inputs
from nnref.data.prepare import first_five
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
ONE_HOT: Any = {"handle_unknown": "infrequent_if_exist", "sparse_output": False}
NO_DATE = np.datetime64("NaT", "us")
BLOCK = 8192  # rows that are encoded at once
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
    ordinal: dict[str, Any] = field(default_factory=dict)  # gives each category its number
    one_hot: dict[str, Any] = field(default_factory=dict)  # and these a column each, where few
    names: list[str] = field(default_factory=list)  # of the columns of the result
    scaled: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))  # which are numbers

    def named(self, kind: str) -> list[str]:
        """The columns that are read as one kind."""
        return [name for name, each in self.inputs.items() if each == kind]

    @property
    def numbered(self) -> dict[str, Any]:
        """What gives the categories their numbers, in columns of many."""
        return {name: each for name, each in self.ordinal.items() if name not in self.one_hot}

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

    def fit(self, table: Table, rows: np.ndarray) -> None:
        """Learn from the training rows what fills gaps, which categories there are, what varies.

        Raises:
            UserError: for a number that is missing where none may be, or that is infinite.
        """
        for name in self.named("date"):
            every = parts_of(table[name].cells[rows], self.dates)
            moving = [part for part, v in every.items() if np.nanmax(v) > np.nanmin(v)]
            self.parts[name] = [p for p in every if p in moving or p == "days"]
        gaps, sources = self.gaps(table), self.sources()
        if gaps and self.fill == "refuse":
            counts = [f"{name}: {each.sum()}" for name, each in gaps.items()]
            raise UserError(
                f"data: {len(counts)} columns lack numbers ({first_five(counts)}); write "
                '"fill": "median" or "mean", or fill them in the file'
            )
        lacking = [name for name, each in gaps.items() if each[rows].any()]
        missing = [c for c, name in enumerate(sources) if name in lacking]
        if sources and self.fill != "refuse":
            # Where nothing is missing, new rows are filled by what some training rows say.
            filled = self.usual(table, rows[:: -(-len(rows) // SOME)], list(dict.fromkeys(sources)))
            filled[missing] = self.usual(table, rows, lacking)
            self.imputer = filling(filled.tolist(), missing, self.fill)
        self.fit_categories(table, rows)
        made = [f"{name}={each}" for name in self.one_hot for each in self.columns_of(name)]
        numbered, names = list(self.numbered), self.number_names()
        self.names = [*numbered, *names, *(f"{names[c]} missing" for c in missing), *made]
        self.scaled = np.zeros(len(self.names), bool)
        self.scaled[len(numbered) : len(numbered) + len(names)] = True

    def usual(self, table: Table, rows: np.ndarray, names: list[str]) -> np.ndarray:
        """The median or the mean of the numbers of some columns over some rows."""
        from sklearn.impute import SimpleImputer

        if not names:
            return np.zeros(0)
        numbers = self.numbers({name: table[name].at(rows) for name in names})
        filler = SimpleImputer(strategy=self.fill, keep_empty_features=True).fit(numbers)
        return np.asarray(filler.statistics_)

    def fit_categories(self, table: Table, rows: np.ndarray) -> None:
        """Give a number to each category of the training rows; of many, to each that comes back."""
        from sklearn.preprocessing import OneHotEncoder

        for name in self.named("category"):
            words, places = words_of(table[name])
            known, numbers = np.unique(words, return_inverse=True)
            numbers = numbers[places[rows]]
            counts = np.bincount(numbers, minlength=len(known))
            many = self.embedding != 0 and np.count_nonzero(counts) > MOST
            if many and counts.max() < RARE:
                raise UserError(
                    f'data: each of the {counts.sum()} texts in "{name}" stands in one training '
                    'row, and says nothing of others; take it out of "inputs" and "categories" '
                    f'and write "drop": ["{name}"]'
                )
            self.ordinal[name] = numbering(known[counts >= (RARE if many else 1)].tolist())
            if not many:  # of numbers it learns twenty times as fast as of text
                one_hot = OneHotEncoder(max_categories=MOST, **ONE_HOT)
                self.one_hot[name] = one_hot.fit((np.cumsum(counts > 0) - 1)[numbers][:, None])

    def columns_of(self, name: str) -> list[str]:
        """The categories that have a column of their own, and one for the rest."""
        rare = self.rare(name)
        own = [each for each in self.ordinal[name].categories_[0].tolist() if each not in rare]
        return own + (["others"] if rare else [])

    def rare(self, name: str) -> list[str]:
        """The categories that share a column."""
        rare = self.one_hot[name].infrequent_categories_[0]
        return [] if rare is None else self.ordinal[name].categories_[0][rare].tolist()

    def number_names(self) -> list[str]:
        """The names of numbers and of the parts of dates."""
        dates = [f"{name}: {part}" for name, parts in self.parts.items() for part in parts]
        return self.named("number") + dates

    def sources(self) -> list[str]:
        """The column of each number and each part of a date."""
        return self.named("number") + [name for name, parts in self.parts.items() for _ in parts]

    def source_of(self, made: str) -> str:
        """The column of the table that a column of the inputs was made of."""
        fits = (
            name
            for name in self.inputs
            if made.startswith((f"{name}=", f"{name}: ", f"{name} missing")) or made == name
        )
        return max(fits, key=len)

    def gaps(self, table: Table) -> dict[str, np.ndarray]:
        """Which rows lack a number or a date, (rows,), of each column where any does.

        Raises:
            UserError: for infinite numbers, and for text among numbers or dates.
        """
        gaps = {}
        for name in self.named("number"):
            cells = number_cells(name, table[name])
            if np.isfinite(cells.sum()):
                continue  # as none of them makes it infinite
            gaps[name] = np.isnan(cells)
            if np.isinf(cells).any():
                self.refuse_infinite(table)
        for name in self.parts:
            gaps[name] = table[name].missing
            if table[name].kind != "date" and not gaps[name].all():
                raise UserError(f'"{name}" holds cells that are no dates')
        return {name: each for name, each in gaps.items() if each.any()}

    def refuse_infinite(self, table: Table) -> None:
        """Raise for infinite numbers, with the columns that hold them."""
        names = self.named("number")
        bad = [np.isinf(number_cells(name, table[name])) for name in names]
        counts = {name: int(each.sum()) for name, each in zip(names, bad, strict=True)}
        named = first_five([f"{name}: {count}" for name, count in counts.items() if count])
        row = int(np.any(bad, axis=0).argmax()) + 1
        raise UserError(
            f"data: {sum(counts.values())} numbers are infinite ({named}), the first in row {row}; "
            'correct them in the file, or write "missing": ["inf", "-inf"] where they are none'
        )

    def numbers(self, table: Table) -> np.ndarray:
        """Numbers and parts of dates of these columns, NaN for missing ones, (rows, numbers)."""
        given = [name for name in self.named("number") if name in table]
        columns = [number_cells(name, table[name]) for name in given]
        for name in filter(table.__contains__, self.parts):
            cells = table[name].cells
            cells = cells if cells.dtype.kind == "M" else np.full(len(cells), NO_DATE)
            every = parts_of(cells, self.dates, self.parts[name])
            columns += [every[part] for part in self.parts[name]]
        rows = len(next(iter(table.values())).cells)
        return np.array(columns).T if columns else np.zeros((rows, 0))

    def __call__(self, table: Table, rows: np.ndarray | None = None) -> np.ndarray:
        """Some rows, by default all, as inputs: float64 (rows, columns), before they are scaled.

        Raises:
            UserError: as `gaps`, and for a number that is missing where none may be.
        """
        gaps = list(self.gaps(table))
        if gaps and self.imputer is None:
            raise UserError(f'numbers are missing in {first_five(gaps)}, and "fill" refuses that')
        rows = np.arange(len(next(iter(table.values())).cells)) if rows is None else rows
        categories = {name: self.coded(name, table[name]) for name in self.ordinal}
        x = np.empty((len(rows), len(self.names)))
        for first in range(0, len(rows), BLOCK):  # there is no room for many copies
            some = rows[first : first + BLOCK]
            numbers = self.numbers({name: table[name].at(some) for name in self.inputs})
            if self.imputer is not None and (gaps or self.gappy):
                numbers = self.imputer.transform(numbers)
            coded = {name: made[places[some]] for name, (made, places) in categories.items()}
            numbered = [coded[name] for name in self.numbered]
            few = [coded[name] for name in self.one_hot]
            np.concatenate([*numbered, numbers, *few], axis=1, out=x[first : first + BLOCK])
        return x

    @property
    def gappy(self) -> bool:
        """Whether a column says where something is missing."""
        return bool(len(self.imputer.indicator_.features_))

    def coded(self, name: str, column: Column) -> tuple[np.ndarray, np.ndarray]:
        """What each word of a column becomes, (words, columns), and the place of each cell's.

        Its number, the last one for what is rare or unknown; or columns of 0 and 1.
        """
        words, places = words_of(column)
        numbers = self.ordinal[name].transform(words[:, None])
        if name not in self.one_hot:
            last = len(self.ordinal[name].categories_[0])
            return np.where(numbers < 0, last, numbers), places
        import warnings

        with warnings.catch_warnings():  # of unknown categories: `doubts` says it with their names
            warnings.simplefilter("ignore", UserWarning)
            return self.one_hot[name].transform(numbers.astype(int)), places

    def to_json(self) -> dict[str, Any]:
        """All that is known of the training rows, as plain values."""
        known = {name: getattr(self, name) for name in PLAIN}
        if self.imputer is not None:
            known["filled"] = self.imputer.statistics_.tolist()
            known["gaps"] = self.imputer.indicator_.features_.tolist()
        every = {name: each.categories_[0].tolist() for name, each in self.ordinal.items()}
        known["categories"] = [every[name] for name in self.one_hot]
        known["rare"] = [self.rare(name) for name in self.one_hot]
        known["numbered"] = {name: every[name] for name in self.numbered}
        return known | {"scaled": self.scaled.tolist()}

    @classmethod
    def from_json(cls, known: dict[str, Any]) -> "Encoder":
        """The encoder of `to_json`: fitted to a few rows that say the same as those of training."""
        from sklearn.preprocessing import OneHotEncoder

        plain = {name: known[name] for name in PLAIN if name in known}
        made = cls(**plain, scaled=np.array(known["scaled"], bool))
        if "filled" in known:
            made.imputer = filling(known["filled"], known["gaps"], made.fill)
        numbered = known.get("numbered", {})
        few = [name for name in made.named("category") if name not in numbered]
        every = dict(zip(few, known.get("categories", ()), strict=True))
        rare = dict(zip(few, known.get("rare", ()), strict=True))
        for name in made.named("category"):
            made.ordinal[name] = numbering(numbered.get(name) or every[name])
            if name in few:
                often = [1 if each in rare[name] else 2 for each in every[name]]
                numbers = np.repeat(np.arange(len(often)), often)[:, None]
                made.one_hot[name] = OneHotEncoder(min_frequency=2, **ONE_HOT).fit(numbers)
        return made

    def doubts(self, table: Table) -> list[str]:
        """What is strange about new rows: gaps, and categories that no training row had."""
        sentences = []
        gaps = {n: int(table[n].missing.sum()) for n in self.inputs if self.inputs[n] != "category"}
        named = [f"{name}: {count}" for name, count in gaps.items() if count]
        if named and self.imputer is not None:
            sentences.append(
                f"cells are missing in {first_five(named)}; filled by the {self.fill} of training"
            )
        for name, ordinal in self.ordinal.items():
            words, places = words_of(table[name])
            new = sorted(set(words[np.unique(places)]) - set(ordinal.categories_[0]))
            where, then = "no training row", "none that was, or as the rare ones"
            if name in self.numbered:
                where, then = f"fewer than {RARE} training rows", "the rare ones do"
            was, counts = ("were", "count") if new[1:] else ("was", "counts")
            if new:
                sentences.append(
                    f"{name}: {first_five(new)} {was} in {where}, and {counts} as {then}"
                )
        return sentences


def filling(filled: Sequence[float], gaps: Sequence[int], fill: Fill) -> Any:
    """What puts these numbers into gaps, and says in further columns where some of them were."""
    from sklearn.impute import SimpleImputer

    rows = np.array([filled] * 2, np.float64)
    rows[1, gaps] = np.nan
    filler = SimpleImputer(strategy=fill, add_indicator=True, keep_empty_features=True)
    return filler.fit(rows)


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
        bad = text_cells(column.at(~column.missing))[0]
        raise UserError(f'in the column {name} "{bad}" is no number, and such were trained on')
    return column.cells if column.kind == "number" else np.full(len(column.cells), np.nan)


def words_of(column: Column) -> tuple[np.ndarray, np.ndarray]:
    """The names of categories, objects (words,), and the place of each cell's among them."""
    if column.kind == "text":
        return np.array([*column.words, NOTHING], object), column.cells
    different, places = np.unique(column.cells, return_inverse=True)
    words = [NOTHING if cell != cell else in_short(cell) for cell in different]
    return np.array(words, object), places


def text_cells(column: Column) -> np.ndarray:
    """Cells as the names of categories, objects (rows,)."""
    words, places = words_of(column)
    return words[places]


def in_short(cell: Any) -> str:
    """A number without a point where it is whole; a date as it is."""
    return str(int(cell)) if isinstance(cell, float) and cell == int(cell) else str(cell)


def parts_of(
    cells: np.ndarray, how: Dates, wanted: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """The numbers that tell dates, by name, with NaN for those that are missing; all, or some.

    Days are since 1970. Sine and cosine put the last day of a year beside the first one.
    """
    missing = np.isnat(cells)
    whole = np.where(missing, np.datetime64(0, "us"), cells)
    days = whole.astype(np.int64) / (1e6 * DAY)
    dates, years = whole.astype("datetime64[D]"), whole.astype("datetime64[Y]")
    of_year = (dates - years).astype(np.int64)
    of_week = (dates.astype(np.int64) + 3) % 7  # the first day of 1970 was a Thursday
    of_day = days - np.floor(days)
    parts: dict[str, Callable[[], np.ndarray]] = {"days": lambda: days}
    if how == "cyclic":
        for name, turns in (("year", of_year / YEAR), ("week", of_week / 7), ("day", of_day)):
            parts[f"{name} sin"] = lambda turns=turns: np.sin(2 * np.pi * turns)
            parts[f"{name} cos"] = lambda turns=turns: np.cos(2 * np.pi * turns)
    elif how == "parts":
        months = whole.astype("datetime64[M]")
        parts["year"] = lambda: years.astype(np.int64) + 1970
        parts["month"] = lambda: months.astype(np.int64) % 12 + 1
        parts["weekday"] = lambda: of_week
        parts["day"] = lambda: (dates - months).astype(np.int64) + 1
        parts["hour"] = lambda: of_day * 24
    chosen = parts if wanted is None else wanted
    return {name: np.where(missing, np.nan, parts[name]()) for name in chosen}
