"""The page is served from files of the package, read-only, with headers that forbid everything else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import pytest
import trio

from tunnel.errors import ConfigError
from tunnel.http.connection import Request, Response
from tunnel.status import page as page_module
from tunnel.status.history import HistoryPoint
from tunnel.status.page import Page, load_page_files

NAMES = {"index.html", "page.css", "page.js", "icon.svg"}
FILES = Path(page_module.__file__).with_name("page_files")


async def one_event() -> AsyncGenerator[bytes, None]:
    yield b"data: x\n\n"


def ask(path: str, method: str = "GET", headers: Mapping[str, str] = {}) -> Response:
    served = Page(load_page_files(), one_event)

    async def one() -> Response:
        response = await served.respond(Request(method, path, headers=headers))
        if response.stream is not None:
            await response.stream.aclose()
        return response

    return trio.run(one)


def headers_of(response: Response) -> dict[str, str]:
    assert len({name for name, _value in response.headers}) == len(response.headers)
    return dict(response.headers)


def test_every_file_of_the_folder_is_served_with_its_type() -> None:
    files = load_page_files()
    assert NAMES <= set(files) == {path.name for path in FILES.iterdir()}
    for name, file in files.items():
        response = ask(f"/ui/{name}")
        assert (response.status, response.body) == (200, (FILES / name).read_bytes())
        assert response.content_type == file.content_type
    assert ask("/ui/").body == (FILES / "index.html").read_bytes()
    assert ask("/ui/page.js").content_type == "text/javascript; charset=utf-8"


@pytest.mark.parametrize("path", ["/", "/ui"])
def test_the_root_redirects_to_the_page_also_behind_a_prefix(path: str) -> None:
    response = ask(path)
    assert (response.status, headers_of(response)["Location"]) == (302, "ui/")


@pytest.mark.parametrize("path", ["/ui/absent.js", "/ui/../page.py", "/ui//page.js", "/ui/page_files/page.js"])
def test_nothing_else_is_served(path: str) -> None:
    assert ask(path).status == 404


@pytest.mark.parametrize("path", ["/", "/ui/", "/ui/page.js", "/ui/events", "/ui/absent"])
def test_the_page_is_read_only_and_every_response_has_the_policy(path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        refused = ask(path, method)
        assert (refused.status, headers_of(refused)["Allow"]) == (405, "GET, HEAD")
    for method in ("GET", "HEAD", "POST"):
        headers = headers_of(ask(path, method))
        policy = headers["Content-Security-Policy"]
        directives = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
        assert directives == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "img-src": "'self'",
            "connect-src": "'self'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
            "require-trusted-types-for": "'script'",
            "trusted-types": "'none'",
        }
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_a_cached_file_is_not_sent_again() -> None:
    first = ask("/ui/page.js")
    tag = headers_of(first)["ETag"]
    assert headers_of(first)["Cache-Control"] == "no-cache"
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        response = ask("/ui/page.js", headers={"if-none-match": known})
        assert (response.status, response.body, headers_of(response)["ETag"]) == (304, b"", tag)
    assert ask("/ui/page.js", headers={"if-none-match": '"other"'}).status == 200
    assert headers_of(ask("/ui/page.css"))["ETag"] != tag


def test_events_are_for_the_page_of_this_server_only() -> None:
    response = ask("/ui/events", headers={"sec-fetch-site": "same-origin"})
    assert (response.status, response.content_type) == (200, "text/event-stream; charset=utf-8")
    assert headers_of(response)["Cache-Control"] == "no-store"
    assert ask("/ui/events").stream is not None, "curl sends no such header"
    for site in ("cross-site", "same-site"):
        assert ask("/ui/events", headers={"sec-fetch-site": site}).status == 403


def test_files_that_cannot_be_read_are_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(page_module, "_FILES", tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"^--ui: cannot read the files of the page: "):
        load_page_files()


def test_nothing_is_loaded_from_elsewhere_and_no_text_becomes_html() -> None:
    for path in FILES.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "//" not in text.replace("// ", "").replace("/** ", ""), f"{path.name}: an address"
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "import("):
            assert word not in text, f"{path.name}: {word}"
    assert "style=" not in (FILES / "index.html").read_text()


def test_the_page_reads_the_fields_of_a_point_in_their_order() -> None:
    script = (FILES / "page.js").read_text()
    for number, name in enumerate(HistoryPoint._fields):
        assert f"const {name.upper()} = {number};" in script
