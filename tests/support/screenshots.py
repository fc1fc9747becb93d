"""Takes the pictures of the page in docs/images with fixed data: `python -m tests.support.screenshots`."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser

from tests.support.browser import BrowserPage, chromium
from tests.support.page_demo import served_page

PLACE = Path(__file__).parents[2] / "docs/images"
MAX_BYTES = 200_000


@dataclass(frozen=True)
class Picture:
    """One picture: the width of the window, the height of what is shown, and the colours."""

    name: str
    width: int
    height: int
    scheme: str
    top: str = "body"  # the element at the upper edge
    window_height: int = 900


PICTURES = (
    Picture("ui-light.png", 1280, 1080, "light"),
    Picture("ui-dark.png", 1280, 1110, "dark", "#peers"),
    Picture("ui-phone.png", 360, 1180, "light"),
)


def take_picture(browser: Browser, url: str, picture: Picture, path: Path) -> None:
    """Take one picture after some updates, so that there are rates."""
    size = picture.width, picture.window_height
    page = BrowserPage(browser, url, size=size, scheme=picture.scheme, timezone_id="UTC", locale="en-US")
    page.wait_for_events(4)
    page.picture(path, top=picture.top, height=picture.height)
    page.close()


def read_size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG (section 11.2.2 of its specification)."""
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    return width, height


def main() -> None:
    """Take all pictures again."""
    PLACE.mkdir(exist_ok=True)
    with served_page() as url, chromium() as browser:
        for picture in PICTURES:
            take_picture(browser, url, picture, PLACE / picture.name)
            print(f"{picture.name}: {read_size(PLACE / picture.name)} {(PLACE / picture.name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
