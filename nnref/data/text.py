"""Text for language models: each character, or byte, is to be told from those before it."""

from pathlib import Path

import numpy as np

from nnref.bounds import Count, Fraction
from nnref.data.catalog import data_folder, opened, prepare_now, splits_of
from nnref.data.prepare import Dataset, Split, Unit
from nnref.data.raw import catalogue
from nnref.errors import UserError

BYTES = tuple(f"{value:02x}" for value in range(256))


def python_topics(
    *,
    unit: Unit = "characters",
    window: Count = 64,
    streams: Count | None = None,
    valid: Fraction = 0.1,
    test: Fraction = 0.0,
    repeats: bool = False,
) -> Dataset:
    """The reference of the Python language, as the standard library brings it: 377,000 characters.

    These are the texts of `pydoc_data.topics`, in the order of their names, so that nothing needs
    to be downloaded. Each version of Python has its own: the fingerprint of the data tells them
    apart. About a fifth of the text says again what another topic said, and stands in the source
    at another indentation: a paragraph of more than 40 characters is kept where it comes first,
    else held-out text would be known from training. How text is cut, see `windows`.

    Args:
        unit: what a step is; a vocabulary of the characters that occur, or of all 256 bytes.
        window: steps of a row, that is of truncated backpropagation.
        streams: parallel streams that a state is carried along, the batch size; null where rows
            stand for themselves.
        valid: share of the text for validation, behind that for training.
        test: share of the text for the test, at its end.
        repeats: keep what is repeated.
    """
    from pydoc_data.topics import topics

    paragraphs = "\n\n".join(topics[name] for name in sorted(topics)).split("\n\n")
    if not repeats:
        paragraphs = without_repeats(paragraphs)
    return language("\n\n".join(paragraphs), unit, window, streams, valid, test)


def text(
    *,
    path: str | None = None,
    encoding: str = "utf-8",
    dataset: str | None = None,
    data_dir: str | None = None,
    unit: Unit = "characters",
    window: Count = 64,
    streams: Count | None = None,
    valid: Fraction = 0.1,
    test: Fraction = 0.0,
) -> Dataset:
    """A text file of yours, or a text of the catalogue of TFDS. How it is cut, see `windows`.

    Splits of the catalogue are joined in their order, train, validation and test, and cut anew.

    Args:
        path: of a file.
        encoding: of the file; for bytes without meaning.
        dataset: name in the catalogue instead of a file, like "tiny_shakespeare".
        data_dir: folder of prepared data sets; null for that of TFDS.
        unit: what a step is; a vocabulary of the characters that occur, or of all 256 bytes.
        window: steps of a row, that is of truncated backpropagation.
        streams: parallel streams that a state is carried along, the batch size; null where rows
            stand for themselves.
        valid: share of the text for validation, behind that for training.
        test: share of the text for the test, at its end.
    """
    if (path is None) == (dataset is None):
        raise UserError("data: give either path, a file of yours, or dataset, a name of TFDS")
    if path is None:
        assert dataset is not None
        content: str | bytes = "".join(text_of(dataset, data_dir).values())
    else:
        content = file_content(path, None if unit == "bytes" else encoding)
    return language(content, unit, window, streams, valid, test)


def file_content(path: str, encoding: str | None) -> str | bytes:
    """The characters of a file, or without an encoding its bytes.

    Raises:
        UserError: for a file that cannot be read, and an encoding that is unknown or not its own.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"data.path: {path}: {(error.strerror or 'unreadable').lower()}") from None
    try:
        return content if encoding is None else content.decode(encoding)
    except LookupError:
        raise UserError(
            f'data.encoding: "{encoding}" is no encoding that Python knows; utf-8, latin-1 and '
            "cp1252 are common"
        ) from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"data.path: byte {error.start} of {path} (0x{content[error.start]:02x}, in line "
            f'{line}) is no {encoding}; give its encoding, or unit="bytes"'
        ) from None


def without_repeats(paragraphs: list[str]) -> list[str]:
    """Paragraphs without those that stood before, whatever their indentation and line breaks."""
    kept, earlier = [], set()
    for paragraph in paragraphs:
        words = " ".join(paragraph.split())
        if len(words) <= 40 or words not in earlier:
            kept.append(paragraph)
        earlier.add(words)
    return kept


# --- from text to rows and back -----------------------------------------------------------------


def language(
    content: str | bytes, unit: Unit, window: int, streams: int | None, valid: float, test: float
) -> Dataset:
    """A text as a data set: its first part for training, the next one and the last one held out.

    The vocabulary is that of the whole text, held out or not: a character that training never saw
    has to be told too, at whatever probability the network happens to give it, and a `DataWarning`
    says how many there are. So bits per character count every character of the held-out text.

    Raises:
        UserError: for an empty text, or a part too short for one window of each stream.
    """
    if not content:
        raise UserError("data: the text is empty")
    if unit == "bytes":
        content = content.encode("utf-8") if isinstance(content, str) else content
        tokens, classes = np.frombuffer(content, np.uint8).astype(np.int32), BYTES
    else:
        assert isinstance(content, str)
        points = np.frombuffer(content.encode("utf-32-le"), np.uint32)
        known, tokens = np.unique(points, return_inverse=True)
        tokens, classes = tokens.astype(np.int32), tuple(map(chr, known))
    held_out = [round(share * len(tokens)) for share in (valid, test)]
    cuts = np.cumsum([max(0, len(tokens) - sum(held_out)), held_out[0]])
    splits = {}
    for name, part in zip(("train", "valid", "test"), np.split(tokens, cuts), strict=True):
        if len(part) or name == "train":
            splits[name] = windows(part, window, streams or 1, name)
    return Dataset(**splits, classes=classes, unit=unit, streams=streams)


def windows(tokens: np.ndarray, window: int, streams: int, name: str) -> Split:
    """Rows of a text: inputs (rows, window), and as targets what comes one step later.

    The text is cut into `streams` parts of equal length, each of them into windows, and row
    i streams + s is window i of stream s: in batches of `streams` rows, row s of a batch goes on
    where row s of the batch before ended. What is left over at the end is dropped, less than one
    window of each stream. The very first character is no target: nothing stands before it.

    Raises:
        UserError: for a text too short, named by its split.
    """
    rows = (len(tokens) - 1) // (window * streams)
    if rows < 1:
        raise UserError(
            f"data: the text of {name} has {len(tokens)} steps, one window of each stream takes "
            f"{streams} x {window} + 1; give it a larger share, a smaller window or fewer streams"
        )
    length = streams * rows * window

    def cut(part: np.ndarray) -> np.ndarray:
        return part.reshape(streams, rows, window).swapaxes(0, 1).reshape(-1, window)

    return Split(cut(tokens[:length]), cut(tokens[1 : length + 1]))


def tokens_of(dataset: Dataset, name: str) -> np.ndarray:
    """The text of a split in its order, as tokens: the inverse of `windows`, but for the rest."""
    x, y = dataset.splits[name]
    streams, window = dataset.streams or 1, x.shape[1]

    def joined(part: np.ndarray) -> np.ndarray:
        return part.reshape(-1, streams, window).swapaxes(0, 1).reshape(-1)

    return np.concatenate([joined(x)[:1], joined(y)])


def spell(dataset: Dataset, tokens: np.ndarray) -> str:
    """Tokens as text; bytes that are no UTF-8 become a replacement character."""
    if dataset.unit == "bytes":
        return bytes(tokens.tolist()).decode("utf-8", "replace")
    return "".join(dataset.classes[token] for token in tokens)


def read(dataset: Dataset, text: str) -> np.ndarray:
    """Text as tokens; a UserError names characters that the data have not."""
    if dataset.unit == "bytes":
        return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32)
    place = {character: token for token, character in enumerate(dataset.classes)}
    unknown = sorted(set(text) - place.keys())
    if unknown:
        raise UserError(
            f"{' '.join(map(repr, unknown))} in {text!r}: no character of the text that was "
            f"learned from, which are {''.join(dataset.classes)!r}"
        )
    return np.array([place[character] for character in text], np.int32)


def text_of(dataset: str, data_dir: str | None = None) -> dict[str, str]:
    """The text of each split of a data set that holds text, "train" first.

    Raises:
        DataMissing: where it is neither prepared nor can be.
        UserError: for a data set with no text, or several.
    """
    tfds = catalogue()
    builder = opened(prepare_now(dataset, data_folder(data_dir)))
    features = builder.info.features
    texts = [n for n, f in features.items() if isinstance(f, tfds.features.Text)]
    if len(texts) != 1:
        raise UserError(
            f"data.dataset: {dataset} has {len(texts)} texts in an example, one is needed; "
            f"its features are {', '.join(sorted(features))}"
        )

    def whole(split: str) -> str:
        source = builder.as_data_source(split)
        examples = source.__getitems__(list(range(len(source))))
        return "\n".join(example[texts[0]].decode() for example in examples)

    return {part: whole(name) for part, name in splits_of(dataset, builder).items()}
