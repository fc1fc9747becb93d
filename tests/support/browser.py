"""Debian's Chromium without a window, driven by Playwright; it records what a page requests and what goes wrong in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.support.processes import LIMIT
from tests.support.requirements import program

_FLAGS = (
    "--no-sandbox",  # for root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP, PHONE = (1280, 800), (360, 740)
_AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a new profile; Playwright's own browsers are not used."""
    path = program("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=list(_FLAGS), timeout=LIMIT * 1000)
        try:
            yield browser
        finally:
            browser.close()


class BrowserPage:
    """One page in a context of its own."""

    def __init__(
        self,
        browser: Browser,
        url: str,
        *,
        size: tuple[int, int] = DESKTOP,
        scheme: str = "light",
        scale: float = 1,
        **fields: Any,
    ) -> None:
        self._context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,  # type: ignore[arg-type]  # light or dark
            device_scale_factor=scale,
            reduced_motion="reduce",
            **fields,
        )
        self._context.set_default_timeout(LIMIT * 1000)
        self.requests: list[str] = []
        self.problems: list[str] = []  # console messages of the level error, and uncaught exceptions
        self.page: Page = self._context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", self._take_message)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.response = self.page.goto(url)

    def _take_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")

    def close(self) -> None:
        self._context.close()

    def evaluate(self, script: str) -> Any:
        return self.page.evaluate(script)

    def wait(self, expression: str, what: str = "") -> None:
        """Wait until a JavaScript expression is true; the page's policy forbids Playwright's own way, which needs eval."""
        deadline = time.monotonic() + LIMIT
        while not self.page.evaluate(f"() => Boolean({expression})"):
            assert time.monotonic() < deadline, f"not within {LIMIT:g}s: {what or expression}\n{self.text()}"
            self.page.wait_for_timeout(20)

    @property
    def events(self) -> int:
        """How many overviews the page has shown."""
        return int(self.evaluate("() => document.body.dataset.events ?? 0"))

    def wait_for_events(self, count: int) -> None:
        """Wait for so many overviews from now on."""
        self.wait(f"Number(document.body.dataset.events ?? 0) >= {self.events + count}", f"{count} events")

    def text(self, selector: str = "body") -> str:
        return self.page.locator(selector).inner_text()

    def rows(self, section: str) -> list[list[str]]:
        """The texts of the cells of a table."""
        rows = f"[...document.querySelectorAll('#{section} > table > tbody > tr')]"
        script = f"() => {rows}.map(row => [...row.children].map(cell => cell.innerText))"
        return self.evaluate(script)  # type: ignore[no-any-return]

    def focused(self) -> str:
        """The text, or the accessible name, of the element that has the focus."""
        return str(
            self.evaluate("() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent")
        )

    def violations(self) -> list[str]:
        """What axe-core finds, each with the elements."""
        found = Axe().run(self.page, options={"runOnly": {"type": "tag", "values": _AXE_TAGS}}).response["violations"]
        return [f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes'][:5]]}" for one in found]

    def picture(self, path: Path, *, top: str, height: int) -> None:
        """Save a picture of the whole width, from the upper edge of an element on."""
        box = self.page.locator(top).bounding_box()
        assert box is not None
        width = self.evaluate("() => innerWidth")
        self.page.screenshot(
            path=path, full_page=True, clip={"x": 0, "y": max(box["y"] - 16, 0), "width": width, "height": height}
        )
