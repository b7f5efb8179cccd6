"""The HTML file: nothing foreign runs in it or is loaded by it, and it stays small."""

from html.parser import HTMLParser

import numpy as np
from logbooks import write_page
from subjects import DONE, FALL, subject_of

from nnref.logbook.pages import page_at
from nnref.report.page.about_networks import NOT_ASKED
from nnref.report.page.about_runs import report_of
from nnref.report.page.document import LIMIT, html
from nnref.report.page.panels import Panel, inline


class Elements(HTMLParser):
    """Names and attributes of everything that opens, and the text between."""

    def __init__(self, text):
        super().__init__()
        self.opened, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.opened.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> $x_1$ {{ 7*7 }} \u2028"


def test_what_users_write_is_shown_and_never_run(tmp_path):
    page = write_page(tmp_path, "some", FALL, facts=DONE, about=HOSTILE, notes=[HOSTILE])
    name = HOSTILE.replace("/", "")  # a name with a slash is refused
    page.write_text(page.read_text().replace("// page 1 of some", f"// page 1 of {name}"))
    subject = subject_of(page)
    plain = Elements(html(report_of([subject_of(write_page(tmp_path, "p", FALL))], [NOT_ASKED])))
    hostile = Elements(html(report_of([subject, subject], [NOT_ASKED] * 2)))
    scripts = [tag for tag, _ in hostile.opened].count("script")
    assert scripts == [tag for tag, _ in plain.opened].count("script")
    assert not any(tag == "img" or "onerror" in attrs for tag, attrs in hostile.opened)
    assert sum("script>alert(1)" in words for words in hostile.words) >= 4
    panel = inline(Panel(HOSTILE, HOSTILE, lambda axes: axes.set_xlabel(HOSTILE) and None))
    assert "<script" not in panel.svg
    assert "$x_1$" in panel.svg


def test_nothing_on_the_page_comes_from_elsewhere(tmp_path):
    subject = subject_of(write_page(tmp_path, "some", FALL, facts=DONE))
    page = Elements(html(report_of([subject], [NOT_ASKED])))
    links = [attrs.get(key) for _, attrs in page.opened for key in ("src", "href", "xlink:href")]
    assert all(link.startswith(("#", "data:")) for link in links if link)
    policy = next(a["content"] for tag, a in page.opened if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "Permission is hereby granted" in "".join(page.words), "the licence of the charts"


def test_a_page_of_100000_epochs_and_twenty_seeds_stays_small(tmp_path):
    rng = np.random.default_rng(0)
    subject = subject_of(write_page(tmp_path, "long", FALL, facts=DONE))
    losses = np.exp(rng.normal(size=(20, 100_001))).astype(np.float32)
    names = ("train_loss", "valid_loss", "train_accuracy", "valid_accuracy")
    for seed, row in enumerate(losses):
        page = page_at(write_page(tmp_path, "long", FALL, seed, facts=DONE))
        page.history.update(dict.fromkeys(names, row))
        subject.pages[seed : seed + 1] = [page]
    text = html(report_of([subject], [NOT_ASKED]))
    assert len(text) < LIMIT
    assert "Of 100,001 epochs at most" in text
