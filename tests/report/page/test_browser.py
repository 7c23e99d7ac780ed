"""The page in a browser: it sorts, filters, switches rule and baseline, opens a run, and asks nothing of the network.

axe-core finds nothing in it that keeps people out. Skipped where there is no browser, see `browsers.py`.
"""

import json
import shutil
import threading

import numpy as np
import pytest
from helpers.browsers import CHROMIUM, DRIVER, open_page, resize, start, violations
from helpers.checkpoints import save_summary
from scipy import stats

from imbalance.metrics.intervals import mean
from imbalance.report.collect import collect
from imbalance.report.page import page
from imbalance.sweep.runs import make_run
from imbalance.training.loop import train

pytest.importorskip("jinja2")
pytest.importorskip("selenium")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    short = {"trainer.epochs": 4, "trainer.eval_every": 1, "trainer.eval_splits": ("val", "test")}
    for name in ("colored_digits_erm", "colored_digits_dro", "colored_digits_lisa"):
        for seed in range(4):
            train(*make_run(name, short, seed, str(folder)))
    return folder


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    driver = start(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def browser(driver, work_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(page(work_dir, collect(work_dir), ["worst_group_accuracy", "balanced_accuracy"], pictured=12))
    open_page(driver, f"file://{path}")
    return driver


def texts(browser, selector):
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
    )


def choose(browser, control, text):
    """Choose the option of a list whose text contains `text`."""
    browser.execute_script(
        "const s = document.getElementById(arguments[0]);"
        "s.value = [...s.options].find(o => o.text.includes(arguments[1])).value; s.dispatchEvent(new Event('change'))",
        control, text,
    )  # fmt: skip


def waited(browser, condition) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20).until(lambda _: condition())


def click(browser, selector):
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def test_it_opens_on_the_answer(browser, work_dir):
    rows = [row for row in collect(work_dir) if row["status"] == "done"]
    means = {}
    for row in rows:
        means.setdefault(row["name"].removeprefix("colored_digits_"), []).append(row["test/worst_group_accuracy"])
    best = max(means, key=lambda name: np.mean(means[name]))
    assert texts(browser, "#answer strong") == [best]
    ranked = [text.strip("★◆ ") for text in texts(browser, "#methods tbody th")]
    assert ranked == sorted(means, key=lambda name: -np.mean(means[name]))
    assert f"{100 * np.mean(means[best]):.1f}" in texts(browser, "#answer")[0]
    shown = texts(browser, "main section:not([hidden]) figure svg")
    assert len(shown) >= 5


def test_differences_and_p_values_are_scipys(browser, work_dir):
    choose(browser, "baseline", "erm")
    found = {}
    for row in collect(work_dir):
        found.setdefault(row["name"], []).append(row["test/worst_group_accuracy"])
    differences = np.subtract(found["colored_digits_dro"], found["colored_digits_erm"])
    expected = float(stats.ttest_1samp(differences, 0).pvalue)
    p = browser.execute_script("return pairedP(arguments[0])", differences.tolist())
    assert p == pytest.approx(expected, rel=1e-9)
    for n, shift in ((3, 0.1), (5, 1.0), (40, 0.3), (200, 3.0)):
        values = np.random.default_rng(n).normal(shift, size=n).tolist()
        p = browser.execute_script("return pairedP(arguments[0])", values)
        assert p == pytest.approx(float(stats.ttest_1samp(values, 0).pvalue), rel=1e-7)
    # The best method is level with each other method whose difference, paired by seed, may be chance.
    values = {"a": [0.9, 0.91, 0.92, 0.9], "b": [0.5, 0.52, 0.51, 0.5], "c": [0.7, 0.95, 0.8, 0.9]}
    level = browser.execute_script(
        "return levelWithBest(Object.entries(arguments[0]).map(([label, v]) => ({label, bySeed: new Map(v.entries())})))"
        ".map(({method, p}) => [method.label, p])",
        values,
    )
    p = stats.ttest_rel(values["c"], values["a"]).pvalue  # the larger of two p-values: Holm leaves it as it is
    assert level == [["c", pytest.approx(float(p), rel=1e-6)]]
    adjusted = browser.execute_script("return holm([0.01, null, 0.04, 0.03])")
    assert adjusted == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]
    low, high = browser.execute_script("const m = meanOf([0, 0, 0.9], OVERVIEW.t, 0, 1); return [m.low, m.high]")
    ends = stats.t.interval(0.95, 2, 0.3, stats.sem([0, 0, 0.9]))
    assert low == 0 and high == pytest.approx(min(1, ends[1]), rel=1e-4)
    shown = {}
    for values in ([0.2, 0.4], [0.5, 0.5, 0.5 + 1e-5], [0.5] * 3):
        script = f"return meanText(meanOf({values}, OVERVIEW.t, 0, 1), {{percent: true}})"
        shown[browser.execute_script(script)] = mean(values, 0, 1).percent()
    assert list(shown) == list(shown.values()) == ["20.0, 40.0", "50.0 ± 0.001", "50.0 (all 3 equal)"]


def test_the_reader_switches_metric_rule_and_baseline(browser):
    before = texts(browser, "#methods tbody td")
    choose(browser, "rule", "last epoch")
    assert "none" in texts(browser, "#methods tbody td") and texts(browser, "#methods tbody td") != before
    choose(browser, "metric", "AUROC")
    choose(browser, "rule", "each run's own rule")
    assert "test AUROC, %" in texts(browser, "#methods thead th")
    choose(browser, "baseline", "lisa")
    assert texts(browser, "#methods tr.baseline th")[0].endswith("lisa")
    choose(browser, "metric", "worst group")
    choose(browser, "baseline", "erm")


def test_tables_sort_and_filter(browser):
    names = "#run-table tbody th"
    assert len(texts(browser, names)) == 12
    head = "#run-table thead th:nth-child(5) button"
    click(browser, head)
    down = [float(text) for text in texts(browser, "#run-table tbody td:nth-child(5)")]
    click(browser, head)
    up = [float(text) for text in texts(browser, "#run-table tbody td:nth-child(5)")]
    assert down == sorted(down, reverse=True) and up == sorted(up) and down != up
    assert texts(browser, "#run-table th[aria-sort=ascending]") == ["test balanced accuracy"]
    browser.execute_script(
        "const f = document.getElementById('filter'); f.value = arguments[0]; f.dispatchEvent(new Event('input'))",
        "dro",
    )
    assert set(texts(browser, names)) == {"dro"} and len(texts(browser, "#methods tbody tr")) == 1
    browser.execute_script(
        "const f = document.getElementById('filter'); f.value = ''; f.dispatchEvent(new Event('input'))"
    )
    assert len(texts(browser, names)) == 12


def test_a_run_opens_and_closes_by_the_keyboard(browser):
    from selenium.webdriver import ActionChains, Keys

    def wait_until(opened: bool) -> None:
        script = "return document.getElementById('run').open"
        waited(browser, lambda: browser.execute_script(script) == opened)

    browser.execute_script("document.querySelector('#run-table tbody a').focus()")
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    wait_until(opened=True)
    text = texts(browser, "#run")[0]
    assert "seed " in text and "python main.py --config=" in text and "Confusion matrix" in text
    assert browser.execute_script("return document.querySelectorAll('#run figure svg[role=img]').length") == 2
    assert browser.execute_script("return [...document.querySelectorAll('#run .errors img')].every(i => i.alt)")
    assert texts(browser, "#run .errors img") and "epoch 4/4" in texts(browser, "#run pre")[0]
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    wait_until(opened=False)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_at_any_width_light_or_dark(browser, width, theme):
    """Of the page, and of an opened run."""
    resize(browser, width)
    browser.execute_script("setTheme(arguments[0]); draw()", theme)
    assert violations(browser) == []
    click(browser, "#run-table tbody a")
    opened = "return document.getElementById('run').open"
    waited(browser, lambda: browser.execute_script(opened))
    assert violations(browser) == []
    browser.execute_script("closeRun(); setTheme('light')")
    waited(browser, lambda: not browser.execute_script(opened))
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_axe_sees_what_is_wrong(browser):
    browser.execute_script(
        "document.body.append(Object.assign(document.createElement('img'), {id: 'bad', src: 'data:,'}))"
    )
    assert [found.partition(":")[0] for found in violations(browser)] == ["image-alt", "region"]
    browser.execute_script("document.getElementById('bad').remove()")


def test_it_fits_a_phone_and_the_dark(browser):
    resize(browser, 390)
    browser.execute_script("draw()")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    click(browser, "#theme")
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(17, 21, 28)"
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_has_asked_nothing_of_the_network_and_said_nothing(browser):
    """In all that the tests above have done with it."""
    assert browser.get_log("browser") == []
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if not url.startswith(("data:", "chrome:", "chrome-untrusted:"))] == [
        browser.current_url.partition("#")[0]
    ]


@pytest.mark.parametrize("settings", [1, 2])
def test_the_page_of_one_or_two_settings_has_its_figures(driver, work_dir, tmp_path, settings):
    """A numeric domain of two values is a linear scale to Observable Plot, unless the page says otherwise."""
    for config in sorted({path.parts[-4] for path in work_dir.rglob("summary.json")})[:settings]:
        shutil.copytree(work_dir / config, tmp_path / config)
    path = tmp_path / "index.html"
    path.write_text(page(tmp_path, collect(tmp_path), ["worst_group_accuracy"], pictured=0))
    driver.get_log("browser")
    open_page(driver, f"file://{path}")
    assert texts(driver, "#methods tbody tr") and texts(driver, "#forest svg") and texts(driver, "#groups svg")
    assert driver.get_log("browser") == []


def test_names_and_logs_that_are_markup_stay_text(driver, work_dir, tmp_path):
    """Of settings, classes, groups and in a log: nothing of them runs, and the page is as usable as another."""
    script = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    names = {"water": f"\"'&{script}", "land": "العربية \u202e ⟵ 🐈‍⬛", "0": script, "1": "x" * 300}
    for seed in range(2):
        run = tmp_path / "colored_digits_<b>_erm" / script.replace("/", "∕") / f"seed={seed}"
        shutil.copytree(next(work_dir.rglob(f"colored_digits_erm/*/seed={seed}")), run)
        summary = json.loads((run / "summary.json").read_text())
        for kind in ("classes", "groups"):
            old = list(summary[kind]["test"])
            new = [f"{i} {name}" for i, name in zip(range(len(old)), names.values())]
            summary[kind] = {split: dict(zip(new, of.values())) for split, of in summary[kind].items()}
            if kind == "groups":
                summary["metrics"] |= {
                    f"test/group_accuracy/{b}": summary["metrics"].pop(f"test/group_accuracy/{a}")
                    for a, b in zip(old, new)
                }
        save_summary(run, summary | {"warnings": [script]})
        (run / "log.txt").write_text(script + "\0\x1b[31m")
    path = tmp_path / "index.html"
    path.write_text(page(tmp_path, collect(tmp_path), ["worst_group_accuracy"], pictured=2))
    driver.get_log("browser")
    open_page(driver, f"file://{path}")
    assert texts(driver, "#warnings li")[0].startswith(script) and violations(driver) == []
    click(driver, "#run-table tbody a")
    waited(driver, lambda: driver.execute_script("return document.getElementById('run').open"))
    assert script in texts(driver, "#run pre")[0] and texts(driver, ".confusion thead th") == [
        f"0 {names['water']}",
        f"1 {names['land']}",
    ]
    assert violations(driver) == [] and driver.get_log("browser") == []
    assert driver.execute_script("return document.querySelectorAll('img[onerror], b').length") == 0


def test_the_live_page_follows_runs_and_keeps_what_the_reader_chose(driver, work_dir):
    """As `imbalance watch` serves it: a run comes in, and the page shows it, sorted, filtered and opened as before."""
    from imbalance.report.watch import HOST, serve

    server = serve([work_dir], 0, ["worst_group_accuracy", "balanced_accuracy"], 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    new = work_dir / "colored_digits_dro" / "a_new_one" / "seed=0"
    try:
        open_page(driver, f"http://{HOST}:{server.server_address[1]}/")
        assert violations(driver) == []
        choose(driver, "baseline", "lisa")
        choose(driver, "metric", "balanced")
        click(driver, "#run-table thead th:nth-child(2) button")
        driver.execute_script(
            "const f = document.getElementById('filter'); f.focus(); f.value = 'l'; f.dispatchEvent(new Event('input'))"
        )
        shutil.copytree(next(work_dir.rglob("colored_digits_lisa/*/seed=2")), new)
        waited(driver, lambda: "13 runs" in texts(driver, "h1")[0])
        assert texts(driver, "#methods tr.baseline th")[0].endswith("lisa")
        assert "test balanced accuracy, %" in texts(driver, "#methods thead th")
        assert texts(driver, "#run-table th[aria-sort]") == ["seed"]
        assert driver.execute_script("return [document.activeElement.id, document.activeElement.value]") == [
            "filter",
            "l",
        ]
        assert driver.get_log("browser") == []
    finally:
        shutil.rmtree(new, ignore_errors=True)
        server.shutdown()
        server.server_close()
