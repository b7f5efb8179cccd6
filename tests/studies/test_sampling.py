"""Samples: drawn as the network says, and told apart from what was learned by heart."""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnref.cli import main
from nnref.data import DATA, Dataset
from nnref.data.text import read, spell, tokens_of, windows
from nnref.errors import UserError
from nnref.experiment.experiment import Experiment
from nnref.studies import run as runs
from nnref.studies.sampling import (
    RUN,
    Verbatim,
    check,
    draw,
    functions_for,
    longest_matches,
    sample,
    verbatim,
)
from nnref.training.setup import from_experiment

RHYME = "the cat sat on the mat, the rat sat on the hat; " * 40


def experiment(path, **changes):
    keys = {
        "data": {"name": "text", "path": str(path), "window": 8, "streams": 4},
        "model": {
            "name": "recurrent",
            "cell": "gru",
            "units": 16,
            "embedding": 6,
            "answer": "each",
            "streams": 4,
        },
        "loss": "softmax_cross_entropy",
        "optimizer": {"name": "adam", "learning_rate": 0.01},
        "metrics": ["bits_per_character"],
        "batch_size": 4,
        "epochs": 6,
        "seeds": [0, 1],
        "shuffle": False,
    }
    return Experiment(**keys | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with a rhyme, an experiment that reads it, and its pages."""
    folder = tmp_path_factory.mktemp("rhyme")
    (folder / "rhyme.txt").write_text(RHYME)
    (folder / "experiments").mkdir()
    made = experiment(folder / "rhyme.txt")
    (folder / "experiments" / "rhyme.json").write_text(made.to_json())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "SECONDS_WORTH_KEEPING", float("inf"))  # however slow the machine
        runs.run(folder / "experiments" / "rhyme.json", logbook=folder / "logbook")
    return folder


def page(folder, seed):
    return next((folder / "logbook" / "rhyme").glob(f"*-seed{seed}.json"))


@pytest.fixture(scope="module")
def trained(folder):
    return runs.trained(page(folder, 1))


# --- drawing ------------------------------------------------------------------------------------


def test_draws_have_the_probabilities_of_the_temperature():
    logits = np.log([0.5, 0.3, 0.2])
    rows = jnp.tile(jnp.asarray(logits, jnp.float32), (20_000, 1))
    for temperature in (1.0, 0.5, 3.0):
        p = np.exp(logits / temperature)
        p /= p.sum()
        drawn = np.asarray(draw(rows, temperature, jax.random.key(0)))
        counted = np.bincount(drawn, minlength=3) / len(rows)
        # Three standard deviations of the count of 20,000 draws.
        np.testing.assert_allclose(counted, p, atol=3 * 0.5 / np.sqrt(len(rows)))
    np.testing.assert_array_equal(draw(rows, 0.0, jax.random.key(0)), 0)


def test_temperature_0_writes_what_the_whole_window_holds_likeliest(trained):
    written = sample(trained, length=30, temperature=0.0, prompt="the cat ")[0]
    prompt = read(trained.dataset, "the cat ")
    # One window over prompt and sample, instead of a state carried from step to step.
    text = np.concatenate([prompt, written])
    functions = functions_for(trained, 1)
    state = functions.init(jax.random.key(0))[1]
    outputs, _ = functions.apply(trained.params, state, jnp.asarray(text[None]), None, False)
    likeliest = np.argmax(outputs[0], axis=-1)
    np.testing.assert_array_equal(likeliest[len(prompt) - 1 : -1], written)


def test_every_sample_goes_its_own_way_and_comes_again(trained):
    several = sample(trained, length=40, prompt="the ", samples=3, seed=5)
    assert several.shape == (3, 40)
    assert len({row.tobytes() for row in several}) == 3
    again = sample(trained, length=40, prompt="the ", samples=3, seed=5)
    np.testing.assert_array_equal(several, again)
    assert not np.array_equal(sample(trained, length=40, prompt="the ", samples=3), several)


def test_every_step_draws_anew(trained):
    heated = sample(trained, length=300, temperature=1e6, prompt="the ")[0]
    assert len(set(heated.tolist())) == len(trained.dataset.classes)


def test_a_longer_sample_begins_with_the_shorter_one(trained):
    short, long = (sample(trained, length=n, prompt="on ", seed=2)[0] for n in (1, 12))
    np.testing.assert_array_equal(long[:1], short)


def test_samples_begin_from_nothing_even_with_as_many_as_streams(trained):
    # The state that training left has the shape of four samples.
    alone = sample(trained, length=20, temperature=0.0, prompt="rat ")
    beside = sample(trained, length=20, temperature=0.0, prompt="rat ", samples=4)
    np.testing.assert_array_equal(beside, np.tile(alone, (4, 1)))


def test_it_is_the_network_of_the_page(folder, trained):
    task, _, _ = from_experiment(trained.experiment)
    functions = task.functions
    state = functions.restart(trained.params, trained.model_state)
    losses = []
    for start in range(0, len(task.valid.x), 4):
        x, y = (part[start : start + 4] for part in task.valid)
        outputs, state = functions.apply(trained.params, state, jnp.asarray(x), None, False)
        losses.append(functions.loss(outputs, jnp.asarray(y)))
    expected = trained.page.history["valid_loss"][-1]
    np.testing.assert_allclose(np.mean(losses), expected, rtol=1e-5)


# --- refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"prompt": "the dog"}, "'d' 'g' in 'the dog'"),
        ({"prompt": ""}, "prompt: it is empty"),
        ({}, r"'\\n' in"),
        ({"prompt": "a", "temperature": -0.1}, "temperature: -0.1 given"),
        ({"prompt": "a", "temperature": float("nan")}, "temperature: nan given"),
        ({"prompt": "a", "length": 0}, "length: 0 given"),
        ({"prompt": "a", "samples": 0}, "samples: 0 given"),
    ],
)
def test_what_cannot_be_written_is_refused(trained, keys, said):
    with pytest.raises(UserError, match=said):
        sample(trained, **({"length": 5} | keys))


def test_a_run_that_is_no_language_model_is_refused(tmp_path):
    made = Experiment(
        data="xor",
        model={"name": "mlp", "hidden": [2]},
        loss="sigmoid_cross_entropy",
        optimizer={"name": "sgd", "learning_rate": 0.1},
        batch_size=4,
        epochs=1,
    )
    done = runs.run(made, logbook=tmp_path)
    with pytest.raises(UserError, match="xor is no text; a sample comes from a language model"):
        sample(runs.trained(done.records[0].page), length=5)


def test_a_model_that_does_not_read_step_by_step_is_refused(trained):
    model = Experiment(
        data="xor",
        model="linear",
        loss="sigmoid_cross_entropy",
        optimizer={"name": "sgd", "learning_rate": 0.1},
        batch_size=4,
        epochs=1,
    )
    with pytest.raises(UserError, match="linear does not read step by step"):
        sample(trained._replace(experiment=model), length=5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 8}, "the data have 4, model.streams is 4 and batch_size 8"),
        ({"model.streams": None}, "the data have 4, model.streams is none and batch_size 4"),
        ({"data.streams": None}, "the data have none, model.streams is 4"),
        ({"shuffle": True}, "shuffle: a state is carried"),
        (
            {"model.streams": None, "data.streams": None, "model.bidirectional": True},
            "read from its end",
        ),
    ],
)
def test_streams_that_do_not_go_on_are_refused(folder, changes, said):
    with pytest.raises(UserError, match=said):
        from_experiment(experiment(folder / "rhyme.txt").replaced(changes))


def test_windows_that_stand_for_themselves_may_be_shuffled(folder):
    changes = {"model.streams": None, "data.streams": None, "shuffle": True, "batch_size": 32}
    alone = experiment(folder / "rhyme.txt").replaced(changes | {"seeds": [0]})
    done = runs.run(alone, logbook=folder / "alone")
    assert done.history["valid_bits_per_character"][0, -1] < 4
    network = runs.trained(done.records[0].page)
    assert sample(network, length=9, prompt="the ", samples=2).shape == (2, 9)


# --- learned by heart ---------------------------------------------------------------------------


def naive_matches(passage, text):
    """For each place the longest run that stands in the text, by looking for every one."""
    found = []
    for start in range(len(passage)):
        length = 0
        while start + length < len(passage) and passage[start : start + length + 1] in text:
            length += 1
        found.append(length)
    return found


@given(
    text=st.text("ab", min_size=1, max_size=60),
    passages=st.lists(st.text("abc", min_size=1, max_size=20), min_size=1, max_size=3),
)
@settings(max_examples=300, deadline=None)
def test_matches_are_those_of_a_naive_search(text, passages):
    found = longest_matches([as_tokens(passage) for passage in passages], as_tokens(text))
    assert [list(lengths) for lengths in found] == [naive_matches(p, text) for p in passages]


def as_tokens(text):
    return np.array([ord(character) for character in text])


def test_long_runs_are_found_whole_and_shared_out():
    text = as_tokens("0123456789" * 3 + "x" + "abcdefghij" * 3)
    passage = as_tokens("--" + "0123456789" * 2 + "-" + "abcdefghij" * 3 + "----" + "x")
    # By hand: runs of 20 and of 30 in a passage of 58; x alone is a run of 1.
    assert verbatim([passage], text, run=20) == [Verbatim(23, 30, 50 / 58)]
    assert verbatim([passage], text, run=30) == [Verbatim(23, 30, 30 / 58)]
    assert verbatim([passage], text, run=31) == [Verbatim(23, 30, 0.0)]


def test_runs_that_overlap_are_counted_once():
    text = as_tokens("abcdef" + "-" + "defghi")
    assert verbatim([as_tokens("abcdefghi..")], text, run=6) == [Verbatim(0, 6, 9 / 11)]


def test_half_a_million_characters_take_seconds():
    rng = np.random.default_rng(0)
    text = rng.integers(0, 4, 500_000)
    text[100_000:200_000] = 7  # one character for ever: what a quadratic method stumbles over
    passages = [text[start : start + 400] for start in (5, 99_800, 150_000)]
    began = time.process_time()
    found = verbatim(passages, text)
    assert time.process_time() - began < 30  # 3 s alone on a core
    assert found == [Verbatim(0, 400, 1.0)] * 3


def test_check_sets_samples_beside_held_out_text(folder):
    made = DATA["text"](path=str(folder / "rhyme.txt"), window=8, valid=0.2)
    train, valid = (tokens_of(made, name) for name in ("train", "valid"))
    stolen, nonsense = train[100:160], np.tile(read(made, "ttt,"), 15)
    memory = check(made, [stolen, nonsense])
    assert memory.samples[0] == Verbatim(0, 60, 1.0)
    assert memory.passages[0] == spell(made, stolen)
    assert (memory.samples[1].longest, memory.samples[1].share) == (2, 0.0)
    assert len(memory.held_out) == len(valid) // 60
    assert {one.longest for one in memory.held_out} == {60}  # a rhyme held out is no secret
    words = memory.in_words()
    assert words[0].endswith(f"share in runs of {RUN} up")
    assert "60  100%" in words[1]
    assert "2    0%" in words[2]
    assert (
        "60  100%  median and mean of 6 passages as long; the longest run of all is 60" in words[3]
    )


def test_check_counts_what_is_usual():
    train = "abcdefghij" * 4 + "0123456789" * 4 + "zz-x"
    memory = check_of(train, ["abcdefghij" * 4 + "-" * 10, "z" * 50], ["x" * 50])
    assert [one.longest for one in memory.held_out] == [40, 2]
    figures = memory.held_out_figures()
    assert figures == {
        "passages": 2,
        "longest_median": 21.0,
        "longest_most": 40,
        "share_mean": pytest.approx(0.4),
    }


def check_of(train, held_out, samples):
    """`check` on texts given as such."""
    alphabet = sorted(set("".join([train, *held_out, *samples])))
    tokens = {c: t for t, c in enumerate(alphabet)}

    def cut(text):
        return windows(np.array([tokens[c] for c in text]), 1, 1, "train")

    made = Dataset(cut(train), cut("".join(held_out)), classes=tuple(alphabet), unit="characters")
    return check(made, [np.array([tokens[c] for c in sample]) for sample in samples])


def test_check_needs_held_out_text_as_long_as_a_sample(folder):
    made = DATA["text"](path=str(folder / "rhyme.txt"), window=8, valid=0.0)
    with pytest.raises(UserError, match=r"0 steps of text were held out.*data\.valid"):
        check(made, [tokens_of(made, "train")[:50]])
    made = DATA["text"](path=str(folder / "rhyme.txt"), window=8)
    with pytest.raises(UserError, match="185 steps of text were held out, a sample has 300"):
        check(made, [tokens_of(made, "train")[:300]])


# --- the command --------------------------------------------------------------------------------


def call(capsys, *arguments):
    code = main(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def test_sample_writes_behind_the_prompt(inside, capsys):
    given = ("--prompt", "the ", "--length", "20", "--seed", "3")
    code, out, err = call(capsys, "sample", str(page(inside, 0)), *given)
    assert (code, err) == (0, ""), "the run kept its network"
    assert out.startswith("the ")
    assert len(out) == len("the ") + 20 + 1
    network = runs.trained(page(inside, 0))
    drawn = sample(network, length=20, temperature=0.8, prompt="the ", seed=3)[0]
    assert out == f"the {spell(network.dataset, drawn)}\n"
    # By its name, the first seed's page is meant.
    assert call(capsys, "sample", "rhyme", *given)[1] == out


def test_sample_checks_and_tells_in_json(inside, capsys):
    given = ("--prompt", "the ", "--length", "50", "--samples", "2", "--check")
    out = call(capsys, "sample", "rhyme", *given)[1]
    assert "\n--- 2 ---\nthe " in out
    assert "verbatim in the training text" in out
    told = json.loads(call(capsys, "sample", "rhyme", *given, "--json")[1])
    assert [len(text) for text in told["samples"]] == [50, 50]
    assert told["page"].endswith("-seed0.json")
    assert (told["temperature"], told["seed"], told["prompt"]) == (0.8, 0, "the ")
    memory = told["memory"]
    for text, one in zip(told["samples"], memory["samples"], strict=True):
        assert one["passage"] in text
        assert one["passage"] in RHYME
        assert len(one["passage"]) == one["longest"]
    assert memory["held_out"]["passages"] == 3
    without = json.loads(call(capsys, "sample", "rhyme", *given[:-1], "--json")[1])
    assert "memory" not in without


def test_sample_of_what_was_never_run_says_so(inside, capsys):
    code, _, err = call(capsys, "sample", "rhyme", "--logbook", "nowhere")
    assert code == 2
    assert "nowhere/rhyme has no run of rhyme" in err
    assert "nnref run rhyme" in err
