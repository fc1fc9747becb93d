"""The picture shows each peer's cost relative to ours, and says the same in text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.picture import Row, draw, main, read_rows

SVG = "{http://www.w3.org/2000/svg}"
MACHINE = {"machine": "a <fast> one, 2 cores", "date": "2026-01-31"}


def row(workload: str, peer: str, *costs: float) -> dict[str, object]:
    return {"workload": workload, "peer": peer, "samples": [{"user": cost / 2, "system": cost / 2} for cost in costs]}


DOCUMENT = {
    "machine": MACHINE,
    "results": [
        row("upload", "tunnel", 1.0, 1.0, 4.0),
        row("upload", "nginx", 2.0, 2.0, 2.0),
        row("handshake", "tunnel", 100.0),
        row("handshake", "haproxy", 150.0),
        row("handshake", "disk", 1.0),  # ours in another setting
        row("flag", "tunnel", 100.0),
    ],
}


def test_rows_have_the_median_ratio_of_the_rounds_in_the_order_of_the_table() -> None:
    assert read_rows(DOCUMENT) == [Row("handshake, one at a time", {"haproxy": 1.5}), Row("upload", {"nginx": 2.0})]


def test_the_picture_has_a_title_a_description_and_colors_for_dark_pages() -> None:
    root = ElementTree.fromstring(draw(read_rows(DOCUMENT), ", ".join(MACHINE.values())))
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "title desc"
    assert "relative to tunnel" in (root.findtext(f"{SVG}title") or "")
    assert (
        root.findtext(f"{SVG}desc")
        == "handshake, one at a time: haproxy 1.50; upload: nginx 2.00. a <fast> one, 2 cores, 2026-01-31"
    )
    assert "prefers-color-scheme:dark" in (root.findtext(f"{SVG}style") or "")


def test_a_mark_is_the_further_right_the_more_a_peer_costs_and_stays_inside() -> None:
    rows = [Row("upload", {"haproxy": 0.01, "nginx": 0.5, "hitch": 1.0, "stunnel": 3.0, "ghostunnel": 99.0})]
    root = ElementTree.fromstring(draw(rows, ""))
    marks = [path for path in root.iter(f"{SVG}path") if "scale" in (path.get("transform") or "")]
    places = [float(re.findall(r"translate\(([\d.]+) ", path.get("transform") or "")[0]) for path in marks]
    assert places == sorted(places)
    assert len(set(places)) == 5
    assert 0 < places[0] < places[-1] < 860


def test_a_file_of_a_run_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.json").write_text(json.dumps(DOCUMENT))
    assert main([str(tmp_path / "results.json")]) == 0
    ElementTree.fromstring(capsys.readouterr().out)


@pytest.mark.parametrize("text", ["", "[]", '{"results": []}', '{"results": [{"workload": "upload"}]}'])
def test_another_file_is_an_error_of_one_line(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.json").write_text(text)
    assert main([str(tmp_path / "results.json")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
