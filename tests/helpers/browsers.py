"""A browser for tests, and a check of the accessibility of a page with axe-core (tests/vendor, MPL 2.0, from npm).

The tests need selenium, and Chromium with its driver: `apt install chromium chromium-driver`.
"""

import shutil
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
AXE = Path(__file__).parents[1] / "vendor" / "axe.min.js"
QUIET = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync", "window-size=1280,900",
)  # fmt: skip


def start(profile: Path):
    """Start Chromium without a window and without network requests of its own, and return its selenium driver.

    Args:
        profile: the folder of the browser profile.
    """
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*QUIET, f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(DRIVER))


def open_page(browser, url: str) -> None:
    """Go to `url`, and return when its scripts have run: on a busy machine `get` returns before that."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(url)
    script = "return document.readyState === 'complete' && location.href.startsWith(arguments[0])"
    WebDriverWait(browser, 60).until(lambda _: browser.execute_script(script, url))


def resize(browser, width: int) -> None:
    """Set the width of the screen in pixels; below 500 the browser acts as a phone."""
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def violations(browser) -> list[str]:
    """Return a message for each violation of an accessibility rule that axe-core finds on the current page."""
    browser.execute_script(AXE.read_text(encoding="utf-8"))
    rules = browser.execute_async_script(
        "axe.run(document, {resultTypes: ['violations']}).then(result => arguments[0](result.violations))"
    )
    return [f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}" for rule in rules for node in rule["nodes"]]
