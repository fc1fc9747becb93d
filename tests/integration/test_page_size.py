"""The page with many rows stays usable, and the pictures in the documentation can be taken again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.support.browser import BrowserPage, chromium
from tests.support.page_demo import LISTENERS, NOW, REFUSALS, demo_overview, served_page
from tests.support.screenshots import MAX_BYTES, PICTURES, PLACE, Picture, read_size, take_picture
from tunnel.lazy_dataclass import replace
from tunnel.status.counters import Counters, TunnelGauges
from tunnel.status.overview import Overview, summarize_listener
from tunnel.status.peer_table import PeerKey, PeerTraffic
from tunnel.status.process_state import ProcessState

ROOT = Path(__file__).parents[2]


@pytest.fixture(name="browser", scope="module")
def open_browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def many(age: float) -> Overview:
    """200 listeners and 120 peers, whose order by bytes changes with each second."""
    listeners = tuple(replace(LISTENERS[0], name=f"listener-{number:03}", opened=number) for number in range(200))
    state = ProcessState(listeners=listeners).listening()
    peers = {
        PeerKey("listener-000", f"spiffe://a.test/peer-{number:03}"): PeerTraffic(
            9, 1, int((number * (age + 7)) % 120) * 1000, 0, NOW
        )
        for number in range(120)
    }
    summaries = tuple(summarize_listener(state, one, Counters(), TunnelGauges()) for one in listeners)
    refusals = [
        replace(REFUSALS[0], peer=f"spiffe://a.test/{number:03}", time=NOW - (number + age) % 100) for number in range(100)
    ]
    return replace(demo_overview(age), state=state, listeners=summaries, peers=peers, refusals=refusals)


@pytest.fixture(name="page")
def open_page(browser: Browser) -> Iterator[BrowserPage]:
    with served_page(many) as url:
        page = BrowserPage(browser, url)
        page.wait_for_events(2)
        yield page
        page.close()
        assert page.problems == []


def test_long_tables_begin_short_and_are_shown_completely_on_demand(page: BrowserPage) -> None:
    assert [len(page.rows(name)) for name in ("listeners", "peers", "refusals")] == [25, 25, 25]
    assert page.text("#count-listeners") == "200"
    page.page.get_by_role("button", name="Show all 200").click()
    assert len(page.rows("listeners")) == 200
    page.page.get_by_role("button", name="Show the first 25").click()
    assert len(page.rows("listeners")) == 25


def test_peers_that_are_not_listed_are_counted(page: BrowserPage) -> None:
    assert page.text("#count-peers") == "120"
    assert "20 more peers are not listed." in page.text("#peers")


def test_a_filter_searches_all_rows_and_a_sort_orders_all_of_them(page: BrowserPage) -> None:
    page.page.get_by_label("Filter listeners").fill("listener-19")
    assert [row[0].partition("\n")[0] for row in page.rows("listeners")] == [f"listener-19{digit}" for digit in range(10)]
    page.page.get_by_label("Filter listeners").fill("")
    page.page.locator("#listeners").get_by_role("button", name="Open").click()
    assert page.rows("listeners")[0][4].startswith("199")


def test_rows_do_not_move_while_one_has_the_focus(page: BrowserPage) -> None:
    page.page.locator("#refusals .copy").nth(8).focus()
    name, before = page.focused(), [row[1] for row in page.rows("refusals")]
    page.wait_for_events(3)
    after = [row[1] for row in page.rows("refusals")]
    assert page.focused() == name
    assert after[: len(before)] == before


def test_rows_are_updated_and_not_made_again(page: BrowserPage) -> None:
    page.evaluate("() => { for (const row of document.querySelectorAll('#listeners tbody tr')) row.isOld = true; }")
    page.wait_for_events(2)
    assert page.evaluate("() => [...document.querySelectorAll('#listeners tbody tr')].every(row => row.isOld)")


# -- pictures


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_picture_has_its_size_and_is_shown_in_the_documentation(picture: Picture, browser: Browser, tmp_path: Path) -> None:
    committed = PLACE / picture.name
    assert read_size(committed) == (picture.width, picture.height)
    assert committed.stat().st_size <= MAX_BYTES
    assert f"images/{picture.name}" in (ROOT / "docs/ui.md").read_text()
    with served_page() as url:
        take_picture(browser, url, picture, tmp_path / picture.name)
    assert read_size(tmp_path / picture.name) == (picture.width, picture.height)


def test_the_readme_shows_the_page() -> None:
    shown = re.findall(r"!\[[^]]+\]\(docs/images/([^)]+)\)", (ROOT / "README.md").read_text())
    assert set(shown) <= {picture.name for picture in PICTURES}
    assert "ui-light.png" in shown


def test_every_picture_is_one_of_the_page() -> None:
    assert {path.name for path in PLACE.glob("ui-*")} == {picture.name for picture in PICTURES}
