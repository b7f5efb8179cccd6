"""Text: cut so that less than a window of each stream is lost, and put together again."""

import os
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ngram import NGram

from nnref.data import DATA, DataWarning, catalog
from nnref.data.text import read, spell, tokens_of, windows
from nnref.errors import UserError
from nnref.experiment.experiment import parse
from nnref.parts.losses import LOSSES
from nnref.parts.metrics import METRICS
from nnref.parts.target_kinds import TARGETS
from nnref.training.setup import bind

REPOSITORY = Path(__file__).parents[2]
SHARED = Path(os.environ.get("NNREF_SHARED_DATA") or REPOSITORY.parent / "shared" / "data")
RHYME = "the cat sat on the mat, the rat sat on the hat; " * 20


@pytest.fixture
def rhyme(tmp_path):
    path = tmp_path / "rhyme.txt"
    path.write_text(RHYME, encoding="utf-8")
    return path


def text(path, **keys):
    return DATA["text"](path=str(path), **keys)


# --- windows ------------------------------------------------------------------------------------


@given(length=st.integers(2, 400), window=st.integers(1, 12), streams=st.integers(1, 6))
def test_rows_of_a_stream_go_on_from_one_another_and_targets_are_the_next_step(
    length, window, streams
):
    tokens = np.arange(length)
    if length - 1 < window * streams:
        with pytest.raises(UserError, match=f"{streams} x {window}"):
            windows(tokens, window, streams, "train")
        return
    x, y = windows(tokens, window, streams, "train")
    np.testing.assert_array_equal(y, x + 1)
    for stream in range(streams):
        one = x[stream::streams].reshape(-1)
        np.testing.assert_array_equal(one, np.arange(one[0], one[0] + len(one)))
    kept = np.sort(x.reshape(-1))
    np.testing.assert_array_equal(kept, np.arange(len(kept)))
    assert length - 1 - len(kept) < window * streams


def test_batches_of_as_many_rows_as_streams_go_on_row_by_row():
    x, _ = windows(np.arange(25), 2, 3, "train")
    np.testing.assert_array_equal(x[:3], [[0, 1], [8, 9], [16, 17]])
    np.testing.assert_array_equal(x[3:6], [[2, 3], [10, 11], [18, 19]])


@pytest.mark.parametrize("streams", [None, 3])
def test_a_text_comes_back_from_its_rows(rhyme, streams):
    made = text(rhyme, window=7, streams=streams, test=0.2)
    parts = [spell(made, tokens_of(made, name)) for name in ("train", "valid", "test")]
    ends = np.cumsum([round(0.7 * len(RHYME)), round(0.1 * len(RHYME))])
    whole = [RHYME[: ends[0]], RHYME[ends[0] : ends[1]], RHYME[ends[1] :]]
    for part, all_of_it in zip(parts, whole, strict=True):
        assert all_of_it.startswith(part)
        assert len(all_of_it) - len(part) < 7 * (streams or 1)
    assert made.streams == streams


def test_the_last_share_is_for_validation(rhyme):
    made = text(rhyme, window=5, valid=0.25)
    assert made.test is None
    assert len(tokens_of(made, "valid")) == pytest.approx(len(RHYME) / 4, abs=5)
    assert text(rhyme, valid=0.0).valid is None


# --- vocabulary ---------------------------------------------------------------------------------


def test_the_vocabulary_is_that_of_the_whole_text_and_a_character_never_trained_on_is_told(
    tmp_path,
):
    path = tmp_path / "late.txt"
    path.write_text("ab" * 45 + "aβ" * 5, encoding="utf-8")
    with pytest.warns(DataWarning, match=r"5 of 9 labels of valid .* no example of: β"):
        made = text(path, window=3)
    assert made.classes == ("a", "b", "β")
    assert spell(made, tokens_of(made, "valid")) == "aβ" * 5


def test_bytes_have_a_class_each_and_come_back(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("Käse und Brot. ".encode("latin-1") * 20)
    made = text(path, unit="bytes", window=5)
    assert len(made.classes) == 256
    assert (made.classes[0xE4], made.train.x[0, 1]) == ("e4", 0xE4)
    assert spell(made, tokens_of(made, "train")).startswith("K\ufffdse und")
    np.testing.assert_array_equal(read(made, "ä"), [0xC3, 0xA4])


def test_characters_are_read_and_spelled(rhyme):
    made = text(rhyme)
    assert spell(made, read(made, "that mat; ")) == "that mat; "
    assert text(rhyme, encoding="latin-1").fingerprint == made.fingerprint
    with pytest.raises(UserError, match=r"'!' 'Ä' in 'a cat Ä!'.*' ,;acehmnorst'"):
        read(made, "a cat Ä!")


def test_another_alphabet_has_another_fingerprint(tmp_path):
    prints = set()
    for alphabet in ("ab", "cd"):
        path = tmp_path / "two.txt"
        path.write_text((alphabet + alphabet[0]) * 100)
        prints.add(text(path, window=4).fingerprint)
    assert len(prints) == 2


def test_repeated_windows_of_a_text_are_no_warning(rhyme):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert text(rhyme, window=1).valid is not None


# --- refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "keys", "said"),
    [
        (b"ok\nok\n\xe4 \n" * 40, {}, r"byte 6 of .*\(0xe4, in line 3\) is no utf-8"),
        (b"ok" * 99, {"encoding": "utf-9"}, r'data\.encoding: "utf-9" is no encoding'),
        (b"", {}, "the text is empty"),
        (b"ab" * 40, {}, r"text of valid has 8 steps, .* 1 x 64 \+ 1; give"),
        (b"ab" * 99, {"valid": 0.5, "test": 0.5}, "text of train has 0 steps"),
        (b"ab" * 99, {"streams": 9}, "takes 9 x 64.*fewer streams"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(tmp_path, content, keys, said):
    path = tmp_path / "some.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        text(path, **keys)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"data\.path: .*none\.txt: no such file"):
        text(tmp_path / "none.txt")


# --- the text that is always there --------------------------------------------------------------


def test_topics_are_the_same_every_time_and_say_nothing_twice():
    made, again = (DATA["python_topics"](streams=8, test=0.1) for _ in range(2))
    assert made.fingerprint == again.fingerprint
    said = [
        " ".join(paragraph.split())
        for name in made.splits
        for paragraph in spell(made, tokens_of(made, name)).split("\n\n")[1:-1]
    ]
    long = [paragraph for paragraph in said if len(paragraph) > 40]
    assert len(long) == len(set(long)) > 1000


def test_topics_can_keep_their_repeats():
    with_them = DATA["python_topics"](repeats=True)
    without = DATA["python_topics"]()
    assert without.train.x.size > 300_000
    assert with_them.train.x.size > 1.1 * without.train.x.size
    assert with_them.classes == without.classes


# --- sequences in losses and metrics ------------------------------------------------------------


def test_losses_and_metrics_take_the_mean_over_all_steps(rhyme):
    made = text(rhyme, window=6)
    targets, width = TARGETS["softmax_cross_entropy"].encode(made.train.y, len(made.classes))
    assert (targets.dtype, width) == (np.int32, len(made.classes))
    logits = np.random.default_rng(0).normal(0, 2, (*targets.shape, width)).astype(np.float32)
    z = logits.astype(np.float64)
    log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    nats = -np.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    losses = LOSSES["softmax_cross_entropy"](jnp.asarray(logits), jnp.asarray(targets))
    np.testing.assert_allclose(losses, nats.mean(axis=1), rtol=2e-6)
    kind = TARGETS["softmax_cross_entropy"]
    expected = {
        "bits_per_character": nats.mean() / np.log(2),
        "perplexity": np.exp(nats.mean()),
        "accuracy": (z.argmax(axis=-1) == targets).mean(),
    }
    for name, value in expected.items():
        metric = METRICS[name](kind.decide, width, kind.log_probabilities)
        sums = [metric.count(jnp.asarray(z), jnp.asarray(t)) for z, t in halves(logits, targets)]
        total = metric.total(jax.tree.map(lambda *parts: jnp.stack(parts), *sums))
        np.testing.assert_allclose(metric.value(total), value, rtol=2e-6)


def halves(*arrays):
    """Two batches of different size."""
    third = len(arrays[0]) // 3
    return [tuple(a[:third] for a in arrays), tuple(a[third:] for a in arrays)]


# --- what a network has to be better than ------------------------------------------------------


def test_the_probabilities_of_an_n_gram_sum_to_1():
    tokens = np.random.default_rng(0).integers(0, 5, 300).tolist()
    model = NGram(3, 7).learn(tokens)
    for context in ((), (1,), (0, 4), (6, 6), (2, 6), (6, 2), (3, 1, 2)):
        assert sum(model.probability(context, k) for k in range(7)) == pytest.approx(1, abs=1e-12)
        assert min(model.probability(context, k) for k in range(7)) > 0


def test_an_n_gram_by_hand():
    # abab: a stands twice, b twice; behind a twice b, behind b once a.
    model = NGram(2, 3).learn([0, 1, 0, 1])
    a = (2 + 2 / 3) / (4 + 2)
    assert model.probability((), 0) == pytest.approx(a)
    assert model.probability((1,), 0) == pytest.approx((1 + a) / (1 + 1))
    assert model.probability((0,), 1) == pytest.approx((2 + a) / (2 + 1))
    assert model.probability((2,), 1) == pytest.approx(a)
    # Behind a the third character never stood: 2/3 of 6 in all, of which a gives on 1 in 3.
    told = (1 + a) / 2 * (2 / 3 / 6) / 3
    assert model.bits_per_character([1, 0, 2]) == pytest.approx(-np.log2(told) / 2)


def test_text_lstm_claims_fewer_bits_than_a_5_gram_needs_for_the_same_characters():
    experiment = parse((REPOSITORY / "experiments" / "text_lstm.json").read_text())
    (claim,) = experiment.claim
    assert claim.metric == "valid_bits_per_character"
    made = bind(experiment, "data", {})()
    train, valid = (tokens_of(made, name).tolist() for name in ("train", "valid"))
    counted = {n: NGram(n, len(made.classes)).learn(train) for n in (1, 5)}
    bits = {n: model.bits_per_character(valid) for n, model in counted.items()}
    # Each version of Python has a text of its own; those of 3.11, 3.12, 3.13 and 3.14 give 2.082,
    # 2.127, 2.102 and 2.022.
    assert claim.at_most < bits[5] < 2.2 < bits[1]


# --- the catalogue ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys", [{}, {"path": "some.txt", "dataset": "tiny_shakespeare"}], ids=["neither", "both"]
)
def test_a_text_comes_from_a_file_or_from_the_catalogue(keys):
    with pytest.raises(UserError, match=r"either path, .*, or dataset"):
        DATA["text"](**keys)


def test_splits_of_the_catalogue_are_joined_in_their_order(monkeypatch, rhyme):
    asked = []

    def text_of(dataset, data_dir):
        asked.append((dataset, data_dir))
        return {"train": RHYME[:500], "valid": RHYME[500:700], "test": RHYME[700:]}

    monkeypatch.setattr(
        sys.modules["nnref.data.text"], "text_of", text_of
    )  # "text" is the part, too
    made = DATA["text"](dataset="some_text", data_dir="there", window=9)
    assert asked == [("some_text", "there")]
    assert made.fingerprint == text(rhyme, window=9).fingerprint


def test_tiny_shakespeare_is_the_file_it_was_made_of(tmp_path):
    raw = SHARED / "tiny_shakespeare"
    if not raw.is_dir():
        pytest.skip(f"{raw} is not there")
    catalog.prepare("tiny_shakespeare", tmp_path, raw)
    made = DATA["text"](dataset="tiny_shakespeare", data_dir=str(tmp_path))
    assert made.fingerprint == text(raw / "input.txt").fingerprint
    assert (len(made.classes), made.train.x.size) == (65, 15_685 * 64)
