"""The files that the page about the replacement of a process shows."""

from __future__ import annotations

import re
from pathlib import Path

_PAGE = Path(__file__).parents[2] / "docs/replacement.md"


def replacement_file(name: str) -> str:
    """The text of one of them."""
    (content,) = re.findall(rf"^```\w+ file={re.escape(name)}\n(.*?)^```$", _PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(content)
