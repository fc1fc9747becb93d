"""The page of a real proxy in a real browser: content, live updates, keyboard, hostile names, and nothing from elsewhere."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from OpenSSL import SSL
from playwright.sync_api import Browser

from tests.support.browser import PHONE, BrowserPage, chromium
from tests.support.config_files import ServedFile
from tests.support.file_identities import FileIdentities
from tests.support.plain_backends import Backend, connect, echo, free_port
from tests.support.processes import Process, Proxy
from tests.support.run_line import has_echo
from tests.support.tls_peer import TlsPeer
from tests.support.workloads import ANY_PORT, CLIENT, SERVER, STRANGER, Identity, Workloads

LOST = "net::ERR_"  # what the browser reports of each attempt to connect
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(name="browser", scope="module")
def open_browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


class Site:
    """A proxy with the page, and the pages that a test opens."""

    def __init__(self, start: Callable[[str], Any], browser: Browser, scheme: str = "http") -> None:
        self._start = start
        self._browser = browser
        self._pages: list[tuple[BrowserPage, str]] = []
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"{scheme}://{self.address}/ui/"
        self.proxy = start(self.address)

    def restart(self) -> None:
        self.proxy = self._start(self.address)

    def open(self, *, expected: str = "nothing", **fields: object) -> BrowserPage:
        """Open the page and wait for two overviews, so that there are rates; problems with `expected` are not reported."""
        page = BrowserPage(self._browser, self.url, **fields)  # type: ignore[arg-type]
        self._pages.append((page, expected))
        page.wait_for_events(2)
        return page

    def close(self) -> None:
        """Close the pages; none may have had a problem or requested anything from elsewhere."""
        for page, _ in self._pages:
            page.close()
        for page, expected in self._pages:
            assert [one for one in page.problems if expected not in one] == []
            assert [url for url in page.requests if not url.startswith(self.url)] == []


@contextmanager
def peer_of(proxy: Proxy, identity: Identity) -> Iterator[TlsPeer]:
    with connect(proxy.address) as sock:
        peer = TlsPeer(sock, identity)
        peer.shake_hands()
        yield peer


def is_refused(proxy: Proxy, identity: Identity) -> bool:
    with peer_of(proxy, identity) as peer:
        try:
            return not has_echo(peer)
        except (SSL.Error, ConnectionError):
            return True


@pytest.fixture(name="site")
def serve_site(workloads: Workloads, browser: Browser) -> Iterator[Site]:
    """A server with SPIFFE identities, in front of a backend that echoes."""
    backend = workloads.enter(Backend(echo))

    def start(address: str) -> Proxy:
        proxy = workloads.server(backend.target, f"--status=http://{address}", "--ui")
        proxy.wait_for("listening for connections")
        return proxy

    site = Site(start, browser)
    yield site
    site.close()


@pytest.fixture(name="used")
def use_site(site: Site, workloads: Workloads) -> Iterator[Site]:
    """The site with an open connection and a refused peer."""
    assert is_refused(site.proxy, workloads.identity(STRANGER))
    with peer_of(site.proxy, workloads.identity(CLIENT)) as peer:
        assert has_echo(peer)
        yield site


def cells(page: BrowserPage, section: str) -> str:
    """The text of the only row of a table."""
    (row,) = page.rows(section)
    return " | ".join(row).replace("\n", " / ")


# -- content


def test_the_page_shows_who_is_connected_and_who_was_refused(used: Site, workloads: Workloads) -> None:
    page = used.open()
    assert page.response is not None
    assert page.response.status == 200
    assert page.page.title().startswith("Ready: ")
    assert (page.text("#readiness"), page.text("#connection")) == ("Ready", "Live")
    listener = cells(page, "listeners")
    for expected in ("inbound", "Ready", ANY_PORT, "to 127.0.0.1:", SERVER, "1 | 1 | 1 | 0"):
        assert expected in listener
    peer = cells(page, "peers")
    assert peer.startswith(f"{CLIENT} | ")
    assert "1 | 1 | 0 B/s / 4 B total" in peer
    refusal = cells(page, "refusals")
    for expected in (
        "no-matching-rule",
        STRANGER,
        "127.0.0.1",
        f"--allow-id {STRANGER}",
        f'{{ allow = "{STRANGER}" }}',
        "Copy",
    ):
        assert expected in refusal
    identity = cells(page, "identities")
    for expected in (SERVER, "SPIFFE Workload API", " min", "Up to date"):
        assert expected in identity
    assert cells(page, "domains").startswith("a.test | 1 | ")


def test_rotations_are_listed(used: Site, workloads: Workloads) -> None:
    page = used.open()
    workloads.api.rotate_svids()
    page.wait("document.querySelectorAll('#identities ol li').length === 2", "the second rotation")
    assert page.rows("identities")[0][5] == "2"
    page.page.locator("#identities summary").click()
    assert page.text("#identities ol").count("serial ") == 2


def test_plots_have_their_values_as_text(used: Site) -> None:
    page = used.open()
    page.wait("document.querySelector('#plots .values tbody td').textContent !== '–'", "the first point of the history")
    labels = page.evaluate("() => [...document.querySelectorAll('#plots svg')].map(svg => svg.getAttribute('aria-label'))")
    assert [label.partition(",")[0] for label in labels] == [
        "Open connections",
        "Handshakes",
        "Refusals",
        "Bytes",
        "Event loop lag",
    ]
    assert labels[0] == "Open connections, last 15 minutes: open now 1, lowest 1, highest 1"
    assert page.evaluate("() => document.querySelectorAll('#plots svg .line').length") == 7
    axes = page.evaluate("() => [...document.querySelectorAll('#plots svg')].map(svg => svg.textContent)")
    for axis, unit in zip(axes, ("2", "1/s", "1/s", "1.0 kB/s", " ms"), strict=True):
        assert unit in axis
        assert "−15 min" in axis


# -- live


def test_a_change_is_shown_with_the_second_event_after_it(site: Site, workloads: Workloads) -> None:
    page = site.open()
    assert page.rows("peers") == []
    with peer_of(site.proxy, workloads.identity(CLIENT)) as peer:
        assert has_echo(peer)
        page.wait_for_events(2)
        assert page.rows("peers")[0][2] == "1"
        assert page.rows("listeners")[0][4] == "1"
    page.wait("document.querySelector('#peers tbody tr').children[2].innerText === '0'", "the end of the connection")


def test_events_come_over_one_connection_also_after_a_reload(site: Site) -> None:
    page = site.open()
    site.proxy.signal(signal.SIGHUP)
    site.proxy.wait_for("reload")
    page.wait_for_events(3)
    assert [url for url in page.requests if url.endswith("/events")] == [f"{site.url}events"]


def test_the_page_continues_after_a_reload_that_replaces_the_status_port(workloads: Workloads, browser: Browser) -> None:
    served = ServedFile(workloads)
    served.add("one", workloads.enter(Backend(echo)).target)

    def start(address: str) -> Process:
        lines = f'listen = "http://{address}"\nui = true'
        served.head = served.head.replace(f'listen = "unix:{served.status}"', lines)
        return served.start()

    site = Site(start, browser)
    page = site.open(expected=LOST)
    served.head = served.head.replace("ui = true", "ui = true\nenable-pprof = true")
    served.servers["two"] = served.servers["one"]
    served.write()
    site.proxy.signal(signal.SIGHUP)
    page.wait("document.querySelectorAll('#listeners tbody tr').length === 2", "the new listener")
    assert [row[0].partition("\n")[0] for row in page.rows("listeners")] == ["one", "two"]
    assert page.text("#connection") == "Live"
    site.close()


def test_focus_and_selection_stay_while_the_page_is_updated(used: Site) -> None:
    page = used.open()
    page.evaluate("() => document.querySelector('#refusals .copy').focus()")
    page.evaluate("() => getSelection().selectAllChildren(document.querySelector('#refusals tbody .id'))")
    page.wait_for_events(3)
    assert page.focused() == f"Copy the flag that admits {STRANGER}"
    assert page.evaluate("() => getSelection().toString()") == STRANGER


def test_the_page_connects_again_after_a_restart(used: Site) -> None:
    page = used.open(expected=LOST)
    first = used.proxy.pid
    used.proxy.kill()
    page.wait("document.querySelector('#connection').textContent.startsWith('Connection lost since')")
    expiry = page.rows("identities")[0][1]
    page.wait(f"document.querySelector('#identities tbody td').innerText !== {expiry!r}", "the time to expiry counts down")
    used.restart()
    page.wait(f"document.querySelector('#process').textContent.includes('process {used.proxy.pid}')")
    assert (page.text("#connection"), used.proxy.pid != first) == ("Live", True)
    assert page.rows("refusals") == [], "of the new process"


def test_an_https_status_port_serves_the_page_too(workloads: Workloads, browser: Browser) -> None:
    backend = workloads.enter(Backend(echo))

    def start(address: str) -> Proxy:
        proxy = workloads.server(backend.target, f"--status={address}", "--ui")
        proxy.wait_for("listening for connections")
        return proxy

    site = Site(start, browser, "https")
    page = site.open(ignore_https_errors=True)
    page.wait_for_events(2)
    assert page.text("#connection") == "Live"
    site.close()


# -- keyboard


def press(page: BrowserPage, *keys: str) -> None:
    for key in keys:
        page.page.keyboard.press(key)


def test_the_skip_link_is_first_and_leads_to_the_content(used: Site) -> None:
    page = used.open()
    press(page, "Tab")
    assert page.focused() == "Skip to content"
    assert page.evaluate("() => document.activeElement.getBoundingClientRect().top >= 0"), "visible while it has the focus"
    press(page, "Enter")
    assert page.evaluate("() => document.activeElement.id") == "main"


def test_every_control_is_reached_by_tab_in_the_order_of_the_page(used: Site) -> None:
    page = used.open()
    seen = []
    for _ in range(60):
        press(page, "Tab")
        tag, section = page.evaluate(
            "() => [document.activeElement.tagName, document.activeElement.closest('section')?.id ?? '']"
        )
        if tag == "BODY":
            break
        assert page.evaluate("() => document.activeElement.matches(':focus-visible')")
        seen.append((section, page.focused()))
    sections = list(dict.fromkeys(section for section, _ in seen if section))
    assert sections == ["listeners", "peers", "refusals", "identities", "domains"]
    names = [name for section, name in seen if section == "refusals"]
    assert names == [
        "",  # the filter
        *("Reason", "Peer", "Source and listener", "Count", "Last"),
        f"Copy the flag that admits {STRANGER}",
        f"Copy the entry that admits {STRANGER}",
    ]
    assert len(seen) < 60


def test_a_table_is_sorted_by_a_button(used: Site, workloads: Workloads) -> None:
    assert is_refused(used.proxy, workloads.identity(STRANGER))
    page = used.open()
    head = page.page.get_by_role("columnheader", name="Count")
    assert head.get_attribute("aria-sort") is None
    head.get_by_role("button").focus()
    press(page, "Enter")
    assert head.get_attribute("aria-sort") == "descending"
    press(page, "Space")
    assert head.get_attribute("aria-sort") == "ascending"
    page.page.get_by_role("columnheader", name="Reason").get_by_role("button").click()
    assert head.get_attribute("aria-sort") is None, "one column sorts a table"


def test_a_filter_hides_rows_and_tells_how_many_match(used: Site) -> None:
    page = used.open()
    page.page.get_by_label("Filter refusals").focus()
    page.page.keyboard.type("STRANGER")
    assert len(page.rows("refusals")) == 1
    page.page.keyboard.type("-absent")
    assert page.rows("refusals") == []
    assert "Nothing matches the filter." in page.text("#refusals")
    page.wait("document.querySelector('#announcement').textContent === '0 of 1'", "the result for screen readers")
    page.wait_for_events(2)
    assert page.rows("refusals") == [], "also after an update"


def test_a_rule_is_copied_by_keyboard(used: Site) -> None:
    page = used.open(permissions=["clipboard-read", "clipboard-write"])
    page.evaluate("() => document.querySelector('#refusals .copy').focus()")
    press(page, "Enter")
    page.wait("document.querySelector('#refusals .copy').textContent === 'Copied'")
    page.wait("document.querySelector('#announcement').textContent === 'Copied'")
    assert page.evaluate("() => navigator.clipboard.readText()") == f"--allow-id {STRANGER}"


def test_a_rule_is_copied_without_the_clipboard_interface(used: Site) -> None:
    page = used.open(permissions=["clipboard-read", "clipboard-write"])
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no secure context')); }")
    page.page.locator("#refusals .copy").nth(1).focus()
    press(page, "Enter")
    page.wait("document.querySelectorAll('#refusals .copy')[1].textContent === 'Copied'")
    assert page.evaluate("() => navigator.clipboard.readText()") == f'{{ allow = "{STRANGER}" }}'
    assert page.focused() == f"Copy the entry that admits {STRANGER}"


# -- safety


def test_names_in_certificates_are_shown_as_text(file_identities: FileIdentities, browser: Browser) -> None:
    backend = file_identities.enter(Backend(echo))
    admitted = file_identities.pki.leaf(HOSTILE, units=("tests",))
    refused = file_identities.pki.leaf(f"{HOSTILE}'\"", units=("others",))

    def start(address: str) -> Proxy:
        proxy = file_identities.serve(backend.target, f"--status=http://{address}", "--ui", rules=("--allow-ou=tests",))
        proxy.wait_for("listening for connections")
        return proxy

    site = Site(start, browser)
    assert is_refused(site.proxy, refused)
    with peer_of(site.proxy, admitted) as peer:
        assert has_echo(peer)
        page = site.open()
        assert page.rows("peers")[0][0] == HOSTILE.replace(" ", r"\x20")
        rules = page.evaluate("() => [...document.querySelectorAll('#refusals code')].map(code => code.textContent)")
        assert rules[0] == "--allow-cn '<img src=x onerror=alert(1)>'\"'\"'\"'"
        assert rules[1] == r"""{ allow = { cn = "<img src=x onerror=alert(1)>'\"" } }"""
        assert page.evaluate("() => document.images.length") == 0
    site.close()


def test_the_policy_forbids_inline_scripts_and_html_from_text(site: Site) -> None:
    page = site.open(expected="blocked")
    assert page.response is not None
    policy = page.response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    tried = page.evaluate(
        """() => {
          const failed = [];
          const attempt = (name, act) => { try { act(); } catch { failed.push(name); } };
          attempt("html", () => { document.body.innerHTML = "<p>x</p>"; });
          const script = document.createElement("script");
          attempt("script", () => { script.textContent = "window.ran = true"; });
          const frame = document.createElement("iframe");
          frame.src = "/_status";
          document.body.append(frame);
          return [failed, window.ran ?? null];
        }"""
    )
    assert tried == [["html", "script"], None]
    assert page.problems, "the browser reports each attempt"


def test_only_files_of_the_page_and_its_events_are_requested(used: Site) -> None:
    page = used.open()
    page.wait_for_events(2)
    names = {url.removeprefix(used.url) for url in page.requests}
    assert names == {
        "",
        "events",
        "page.css",
        "page.js",
        "icon.svg",
        "dom.js",
        "format.js",
        "live.js",
        "plot.js",
        "rates.js",
    } | {
        "table.js",
        "tables.js",
    }


# -- everybody can use it


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [None, PHONE], ids=["desktop", "phone"])
def test_axe_core_finds_no_violation(used: Site, scheme: str, size: tuple[int, int] | None) -> None:
    fields = {"size": size} if size else {}
    page = used.open(expected=LOST, scheme=scheme, bypass_csp=True, **fields)  # axe-core makes elements from text
    page.wait("document.querySelector('#plots .values tbody td').textContent !== '–'", "the first point of the history")
    page.page.locator("#identities summary").click()
    assert page.violations() == []
    used.proxy.kill()
    page.wait("document.querySelector('#connection').textContent.startsWith('Connection lost')")
    page.page.get_by_label("Filter peers").fill("absent")
    assert page.violations() == [], "while the connection is lost"


@pytest.mark.parametrize("width", [320, 360, 640, 1080, 1081, 1280])
def test_the_page_does_not_scroll_sideways(used: Site, width: int) -> None:
    page = used.open(size=(width, 740))
    assert page.evaluate("() => document.documentElement.scrollWidth") == width


def test_tables_stay_tables_on_a_phone(used: Site) -> None:
    page = used.open(size=PHONE)
    for name in ("Peers with their connections and rates", "Listeners, their state and their connections"):
        table = page.page.get_by_role("table", name=name)
        assert table.get_by_role("rowheader").count() == 1
        assert table.get_by_role("cell").count() >= 6
    assert page.page.get_by_role("heading", level=2).count() == 7
    assert page.page.get_by_role("main").count() == 1


def test_only_changes_of_the_state_are_announced(used: Site) -> None:
    page = used.open()
    page.evaluate(
        """() => {
          window.announced = [];
          const note = (records) => window.announced.push(...records.map((one) => one.target.textContent));
          for (const region of document.querySelectorAll("[role=status], [aria-live]")) {
            new MutationObserver(note).observe(region, { childList: true, characterData: true, subtree: true });
          }
        }"""
    )
    page.wait_for_events(3)
    assert page.evaluate("() => window.announced") == []


def test_a_page_that_nobody_asked_for_is_not_there(workloads: Workloads) -> None:
    backend = workloads.enter(Backend(echo))
    address = f"127.0.0.1:{free_port()}"
    proxy = workloads.server(backend.target, f"--status=http://{address}")
    proxy.wait_for("listening for connections")
    host, _, port = address.partition(":")
    for path in ("/", "/ui/", "/ui/events"):
        with connect((host, int(port))) as sock:
            sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            assert sock.recv(100).startswith(b"HTTP/1.1 404")
