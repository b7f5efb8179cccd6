"""The page of a report as people meet it: in a browser, wide and narrow, light and dark."""

import json
import shutil
import warnings
from collections import Counter

import numpy as np
import pytest
from diagnoses import FAULT, MEASURES
from logbooks import EXPERIMENT, write_page

from nnref.diagnosis.findings import Findings
from nnref.experiment.experiment import Experiment
from nnref.logbook import pages
from nnref.logbook.pages import page_at
from nnref.report.page.about_networks import network_of
from nnref.report.page.about_runs import report_of
from nnref.report.page.blocks import BAND, Chart, Line, Report, Section, Switch, Switches, View
from nnref.report.page.document import write
from nnref.report.page.subjects import ExperimentPages
from nnref.studies import run as runs

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("no chromium with its chromedriver on this machine", allow_module_level=True)

from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def probes(page):
    """Measures of two layers over ten epochs."""
    values = np.geomspace(0.01, 1, 22, dtype=np.float32).reshape(11, 2)
    names = ("gradient_norm", "weight_norm", "update_ratio", "dead", "saturated")
    layers = {"layers": np.array(["layers.0", "layers.1"])}
    return layers | {"step": np.arange(11), "epoch": np.arange(11.0)} | dict.fromkeys(names, values)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A page about two experiments: one trained, clipped and scheduled; one with long words."""
    folder = tmp_path_factory.mktemp("report")
    keys = {"clipping": {"name": "global_norm", "threshold": 0.1}, "schedule": "cosine"}
    trained = Experiment(**EXPERIMENT | keys | {"seeds": [0, 1], "epochs": 10})
    records = runs.run(trained, logbook=folder).records
    wordy = "a-long-word-without-any-place-to-break-it" * 4
    history = {"train_loss": [1.0, 0.5, 0.25], "valid_loss": [1.0, 0.0, 2.0]}
    page = write_page(folder, wordy, history, about=f"<b>{wordy}</b>", notes=[wordy])
    subjects = [
        ExperimentPages([page_at(r.page) for r in records]),
        ExperimentPages([page_at(page)]),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "probes_of", probes)
        networks = [network_of(subject) for subject in subjects]
        path = write(report_of(subjects, networks, ["skipped something"]), folder / "r.html")
    return path, subjects[0]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, which hears nothing of the network."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # With a path, selenium looks for no driver, and downloads none.
    driver = webdriver.Chrome(options, webdriver.ChromeService(executable_path=DRIVER))
    yield driver
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # pipes of a process that has gone
        driver.quit()


def shown(browser, path, width=1280, dark=False):
    """The page at this width, in light or dark."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(path.as_uri())
    return browser


@pytest.fixture
def page(browser, report):
    return shown(browser, report[0])


@pytest.fixture
def chart(page):
    """The first chart."""
    return page.find_element(By.CSS_SELECTOR, "[data-chart]")


def lines(page, chart):
    """The labels of the lines that are drawn."""
    return page.execute_script("return arguments[0].plot.series.slice(1).map(s => s.label)", chart)


def switch(chart, name):
    return chart.find_element(By.CSS_SELECTOR, f"input[name='{name}']")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_no_errors_no_requests_and_nothing_is_cut_off(browser, report, width, dark):
    browser.get_log("browser"), browser.get_log("performance")
    page = shown(browser, report[0], width, dark)
    page.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
    assert page.execute_script("return innerWidth") == width
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    urls = {params["request"]["url"].partition(",")[0] for params in sent}
    assert report[0].as_uri() in urls
    outside = {url for url in urls if not url.startswith("data:")} - {report[0].as_uri()}
    assert not outside
    drawn = page.execute_script(
        "return [...document.querySelectorAll('[data-chart]')].map(c => c.plot.width)"
    )
    assert len(drawn) == 3, "curves, clipped steps, rate"
    assert all(0 < each < width for each in drawn)


def test_the_page_would_refuse_to_reach_out(page):
    """The policy, not only the absence of links."""
    page.execute_script("new Image().src = 'http://192.0.2.1/x.png'")
    page.execute_script("fetch('http://192.0.2.1/').catch(() => 0)")
    told = [entry["message"] for entry in page.get_log("browser")]
    assert any("img-src" in each for each in told)
    assert any("default-src" in each or "connect-src" in each for each in told)


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(browser, report, dark):
    page = shown(browser, report[0], dark=dark)
    page.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
    weak = page.execute_script(
        """
        const rgb = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
        const part = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
        const ground = (e) => {
          for (; e; e = e.parentElement) {
            const back = rgb(getComputedStyle(e).backgroundColor);
            if (back.length === 3 || back[3] === 1) return back;
          }
          return [255, 255, 255];
        };
        const found = [];
        const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        let seen = 0;
        while (walk.nextNode()) {
          const element = walk.currentNode.parentElement;
          if (!walk.currentNode.data.trim() || !element.getClientRects().length) continue;
          const style = getComputedStyle(element);
          const ink = rgb(element.closest("svg") ? style.fill : style.color);
          const [a, b] = [light(ink), light(ground(element))];
          const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          seen += 1;
          if (contrast < 4.5) found.push(`${walk.currentNode.data} ${contrast}`);
        }
        if (seen < 200) found.push(`only ${seen} texts seen`);
        return found;
        """
    )
    assert weak == []


def test_pictures_and_switches_have_words(page):
    told = page.execute_script(
        """
        const every = (what) => [...document.querySelectorAll(what)];
        const inner = (e) => e.closest("[role=img]") !== null;
        return {
          silent: every("[role=img]").filter((e) => !(e.getAttribute("aria-label") ?? "").trim())
            .concat(every("img").filter((e) => !e.alt.trim())).map((e) => e.outerHTML),
          loose: every("svg, canvas").filter((e) => !inner(e)).length,
          nameless: every("input").filter((e) => !e.labels[0]?.textContent.trim())
            .map((e) => e.outerHTML),
          ids: every("[id]").map((e) => e.id),
          headless: every("table").filter((t) => !t.caption || !t.querySelector("th")).length,
          anchors: every("nav a").filter((a) => !document.querySelector(a.hash)).length,
          pictures: every("figure svg").length,
        };
        """
    )
    assert told["silent"] == told["nameless"] == []
    assert told["loose"] == told["headless"] == told["anchors"] == 0
    assert [name for name, times in Counter(told["ids"]).items() if times > 1] == []
    assert told["pictures"] >= 5 + 4 + 1, "heat maps, histograms, a confusion matrix"


def test_lines_are_switched_off_and_on(page, chart):
    everything = lines(page, chart)
    assert sum("seed" in label for label in everything) == 4
    assert len(everything) == 8
    for name, gone in [("validation", "validation"), ("runs", "seed"), ("run 1", "a-long-word")]:
        switch(chart, name).click()
        left = lines(page, chart)
        assert left == [label for label in everything if gone not in label]
        switch(chart, name).click()
    assert lines(page, chart) == everything
    chart.find_element(By.CSS_SELECTOR, ".fold summary").click()
    switch(chart, "run 0 1").click()
    assert [label for label in everything if label not in lines(page, chart)] == [
        "unnamed training, seed 1",
        "unnamed validation, seed 1",
    ]


def test_the_switches_work_from_the_keyboard(page, chart):
    def scale():
        return page.execute_script("return arguments[0].plot.scales.y.distr", chart)

    before = lines(page, chart)
    switch(chart, "training").send_keys(Keys.SPACE)
    assert len(lines(page, chart)) < len(before)
    assert scale() == 1, "a loss of 0 has no logarithm"
    chosen = chart.find_element(By.CSS_SELECTOR, "input[name=scale]:checked")
    chosen.send_keys(Keys.ARROW_RIGHT)
    assert scale() == 3
    drawn = page.execute_script("return arguments[0].plot.data.slice(1).flat()", chart)
    assert 0 not in drawn
    view = chart.find_element(By.CSS_SELECTOR, "input[name=view]:checked")
    view.send_keys(Keys.ARROW_RIGHT)
    assert scale() == 1, "another measure, on its own scale"
    drawn = page.execute_script("return arguments[0].plot.data[1]", chart)
    assert all(value is None or 0 <= value <= 1 for value in drawn), "accuracy"


def test_the_slider_and_the_pointer_tell_the_figures(page, chart, report):
    history = report[1].history["valid_loss"]

    def told():
        items = chart.find_elements(By.CSS_SELECTOR, ".values li")
        return [item.text for item in items]

    def expected(epoch):
        low, high = sorted(history[:, epoch])
        middle = f"{np.median(history[:, epoch]):.4g}"
        return f"unnamed validation, median: {middle} ({low:.4g} to {high:.4g})"

    assert told()[0] == "epoch 10"
    assert expected(10) in told()
    slider = chart.find_element(By.CSS_SELECTOR, "input[type=range]")
    for _ in range(3):
        slider.send_keys(Keys.ARROW_LEFT)
    assert told()[0] == "epoch 7"
    assert expected(7) in told()
    assert expected(7) in slider.get_attribute("aria-valuetext")
    area = chart.find_element(By.CSS_SELECTOR, ".u-over")
    page.execute_script("arguments[0].scrollIntoView()", area)
    ActionChains(page).move_to_element(area).perform()
    page.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0]))")
    assert told()[0] == "epoch 5", "the pointer in the middle"
    assert expected(5) in told()


def test_bands_stand_around_their_lines_until_they_are_switched_off(browser, tmp_path):
    x = [1e-3, 1e-2, 1.0]
    band = {"low": [1.0, None, 2.0], "high": [3.0, 4.0, 5.0]}
    both = [Line("a", [2.0, 3.0, 4.0], 0, ("a",), **band), Line("b", [1.0, 1.0, 0.0], 1, ("b",))]
    view = View("loss", x, both, x_log=True, stepped=True)
    groups = [Switches("lines", [Switch("a", "a"), Switch("b", "b"), Switch(BAND, "quartiles")])]
    section = Section("s", "S", [Chart("alt", "rate", [view], groups)])
    path = write(Report("bands", [], [section]), tmp_path / "r.html")
    page = shown(browser, path)
    chart = page.find_element(By.CSS_SELECTOR, "[data-chart]")

    def drawn():
        ask = "const p = arguments[0].plot; return [p.bands.map(b => b.series), p.data, p.scales.x]"
        return page.execute_script(ask, chart)

    bands, data, scale = drawn()
    assert bands == [[3, 4]]
    assert data[3:] == [band["high"], band["low"]]
    assert scale["distr"] == 3, "logarithmic"
    told = [item.text for item in chart.find_elements(By.CSS_SELECTOR, ".values li")]
    assert told == ["rate 1", "a: 4 (2 to 5)", "b: 0"]
    switch(chart, BAND).click()
    assert drawn()[0] == []
    switch(chart, BAND).click()
    switch(chart, "a").click()
    assert drawn()[0] == []
    assert lines(page, chart) == ["b"]
    assert page.get_log("browser") == []


def test_lines_take_the_colours_of_a_dark_screen(browser, report):
    def colours(dark):
        page = shown(browser, report[0], dark=dark)
        chart = page.find_element(By.CSS_SELECTOR, "[data-chart]")
        ask = "return arguments[0].plot.series.slice(1).map(s => s.stroke())"
        return set(page.execute_script(ask, chart))

    assert colours(False) == {"#2f5fd0", "#c2410c"}
    assert colours(True) == {"#7aa2ff", "#ff9d5c"}


def test_a_diagnosis_fits_its_screen_and_a_frame_of_a_notebook(browser, tmp_path):
    found = Findings((FAULT,), ("the data",), measures=MEASURES, learns=False)
    path = found.to_html(tmp_path / "why.html")
    for width in (390, 1280):
        for dark in (False, True):
            page = shown(browser, path, width, dark)
            assert page.execute_script("return document.documentElement.scrollWidth") <= width
            drawn = "return [...document.querySelectorAll('td.bar i')].map(b => b.offsetWidth)"
            before, after = page.execute_script(drawn)[:2]
            assert after == pytest.approx(9 * before, abs=9), "skills of 0.1 and 0.9"
    assert page.get_log("browser") == []
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<meta charset='utf-8'>{found._repr_html_()}")
    shown(browser, notebook).switch_to.frame(0)
    browser.find_element(By.LINK_TEXT, "Layers over the run").click()
    assert browser.execute_script("return document.URL") == "about:srcdoc#layers"
    assert browser.execute_script("return document.title") == "Diagnosis"
    browser.switch_to.default_content()
