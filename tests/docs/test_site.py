"""Tests of the built site: the scripts of the gallery run, the build warns of nothing, and axe-core has no complaint."""

import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from helpers.browsers import CHROMIUM, DRIVER, open_page, resize, start, violations
from helpers.pages import BUILT

from imbalance.utils.package import process_environment

pytest.importorskip("myst_parser", reason="the extra 'docs' is not installed; it needs Python 3.11")
pytest.importorskip("sphinx_gallery", reason="the extra 'docs' is not installed")
pytestmark = pytest.mark.timeout(600)  # for the build, where others use the machine
PAGES = ("index", "choose", "methods/poly", "gallery/index", "reference/config", "findings")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns(*BUILT))
    for name in ("experiments", "imbalance", "results"):
        (folder / name).symlink_to(ROOT / name)
    call = [sys.executable, "-m", "sphinx", "-W", "-q", "docs", "docs/_build"]
    env = process_environment(OMP_NUM_THREADS="1")
    done = subprocess.run(call, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "docs" / "_build"


@pytest.fixture(scope="module")
def browser(site, tmp_path_factory):
    pytest.importorskip("selenium")
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs chromium and chromedriver")
    browser = start(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.quit()


def test_it_asks_no_other_host_and_its_search_finds_every_method(site):
    done = subprocess.run([sys.executable, "docs/check.py", str(site)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_axe_finds_nothing_on_a_page_and_it_fits_a_phone(browser, site, page, theme):
    for width in (1280, 390):
        resize(browser, width)
        open_page(browser, f"file://{site / page}.html")
        browser.execute_script("document.body.dataset.theme = arguments[0]", theme)
        assert violations(browser) == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
