"""A real headless browser for the tests of pages: Debian's Chromium, steered by selenium.

Nothing leaves the machine: every host but loopback resolves to nowhere, and `requests` lists what a page asked for.

    with browser(width=390, dark=True) as page:
        page.open(folder / "report.html")
        assert not page.outside() and not page.errors()
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
_OWN = ("data", "blob", "about", "chrome")
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
_FLAGS += ("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--no-first-run", "--disable-extensions")
_FLAGS += ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server")
_CONTRAST = """
const light = c => c.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const canvas = document.createElement("canvas"); canvas.width = canvas.height = 1;
const pen = canvas.getContext("2d", {willReadFrequently: true});
const paint = (colours) => { pen.clearRect(0, 0, 1, 1); pen.fillStyle = "white"; pen.fillRect(0, 0, 1, 1);
  for (const c of colours) { pen.fillStyle = c; pen.fillRect(0, 0, 1, 1); }
  return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3); };
const found = [];
for (const node of document.querySelectorAll("body *")) {
  const own = [...node.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  const style = getComputedStyle(node);
  if (!own || style.visibility === "hidden" || !node.getClientRects().length) continue;
  const under = [];
  for (let up = node; up; up = up.parentElement) under.unshift(getComputedStyle(up).backgroundColor);
  const isSvg = node instanceof SVGElement;
  const a = light(paint([...under, isSvg ? style.fill : style.color])), b = light(paint(under));
  const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  found.push([ratio, node.tagName + "." + node.getAttribute("class"), node.textContent.trim().slice(0, 40)]);
}
return found.sort((x, y) => x[0] - y[0]).slice(0, 5);
"""
"""Contrast of each text with what is painted below it, by WCAG 2.2's formula, the five lowest."""


class Page:
    """One browser window.

    Args:
        driver: selenium's, for what is not here: `page.driver.find_element(...)`.
        size: Width and height, CSS pixels; a real window cannot be as narrow as a phone, so the page is told of them.
    """

    def __init__(self, driver: Any, size: tuple[int, int]):
        self.driver, self.size = driver, size
        self._resize(*size)
        self._asked: list[str] = []

    def open(self, address: str | Path) -> None:
        """Go to a file or an address on loopback."""
        self.driver.get(address.resolve().as_uri() if isinstance(address, Path) else address)

    def requests(self) -> list[str]:
        """Return every address asked for since the window opened, data: URIs left out."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self._asked.append(message["params"]["request"]["url"])
        return [url for url in self._asked if urlsplit(url).scheme not in _OWN]

    def outside(self) -> list[str]:
        """Return the addresses asked for that are neither a file nor on loopback."""
        return [url for url in self.requests() if urlsplit(url).hostname not in (None, "127.0.0.1", "localhost")]

    def errors(self) -> list[str]:
        """Return what the console was told since the last call, warnings too; the absent icon is none of ours."""
        told = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]
        return [text for text in told if "favicon.ico" not in text]

    def overflow(self) -> int:
        """Return by how many CSS pixels the page is wider than the window."""
        root = "document.documentElement"
        return self.driver.execute_script(f"return {root}.scrollWidth - {root}.clientWidth")

    def lowest_contrasts(self) -> list[tuple[float, str, str]]:
        """Return (ratio, element, text) of the five texts with the least contrast, least first."""
        return [tuple(found) for found in self.driver.execute_script(_CONTRAST)]

    def press(self, *keys: str) -> None:
        """Press keys one after the other, as `Keys.TAB`, wherever the focus is."""
        from selenium.webdriver import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def focused(self) -> str:
        """Return the text, or else the label, of what has the focus."""
        script = "const e = document.activeElement; return e.innerText || e.getAttribute('aria-label') || e.tagName"
        return self.driver.execute_script(script)

    def picture(self, path: Path, whole: bool = True) -> None:
        """Write a PNG of the window, or of the whole page."""
        if whole:
            height = self.driver.execute_script("return document.documentElement.scrollHeight")
            self._resize(self.size[0], min(height, 16000))
        self.driver.save_screenshot(str(path))
        if whole:
            self._resize(*self.size)

    def _resize(self, width: int, height: int) -> None:
        settings = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", settings)


@contextlib.contextmanager
def browser(width: int = 1200, height: int = 900, dark: bool = False, scripts: bool = True) -> Iterator[Page]:
    """Open a window; the test is skipped, and says why, where there is no browser.

    Args:
        width: Of the page, CSS pixels; 390 is a phone.
        height: As `width`.
        dark: Whether the person prefers dark colours.
        scripts: Whether pages may run JavaScript.
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium and chromedriver on this machine (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*_FLAGS, f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if not scripts:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        page = Page(driver, (width, height))
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        yield page
    finally:
        driver.quit()
