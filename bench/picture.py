"""Draws the costs of all peers relative to ours as an SVG picture: `python -m bench.picture results.json > picture.svg`."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

from bench.goals import OURS

_SHOWN = ("handshake", "handshake16", "echo1", "echo32", "echo256", "record", "upload", "download", "bulk256", "idle")
_LABELS = {
    "handshake": "handshake, one at a time",
    "handshake16": "handshake, 16 at once",
    "echo1": "64 bytes, 1 connection",
    "echo32": "64 bytes, 32 connections",
    "echo256": "64 bytes, 256 connections",
    "record": "16 KiB, 1 connection",
    "upload": "upload",
    "download": "download",
    "bulk256": "256 connections of bulk",
    "idle": "memory of an idle connection",
}
_PEERS = {  # a mark around 0, 0, a color for a light and one for a dark background
    "ghostunnel": ("M-5-5H5V5H-5Z", "#0369a1", "#38bdf8"),
    "haproxy": ("M0-6L6 5H-6Z", "#b45309", "#fbbf24"),
    "nginx": ("M0 6L6-5H-6Z", "#15803d", "#4ade80"),
    "hitch": ("M0-6L6 0L0 6L-6 0Z", "#7e22ce", "#c084fc"),
    "stunnel": ("M-5-2H-2V-5H2V-2H5V2H2V5H-2V2H-5Z", "#be123c", "#fb7185"),
    "tcp": ("M-6-1.5H6V1.5H-6Z", "#4b5563", "#9ca3af"),
}
_NAMES = {"tcp": "TCP relay without TLS"}
_TICKS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_LEFT, _RIGHT, _TOP, _ROW, _WIDTH = 215, 25, 96, 34, 860


@dataclass(frozen=True, slots=True)
class Row:
    """One workload: the cost of each peer divided by ours, the median of the rounds."""

    label: str
    ratios: Mapping[str, float]


def read_rows(document: Mapping[str, Any]) -> list[Row]:
    """Return the rows of the picture from the JSON of a run, in their order."""
    costs = {
        (row["workload"], row["peer"]): [sample["user"] + sample["system"] for sample in row["samples"]]
        for row in document["results"]
    }
    rows = []
    for workload in _SHOWN:
        ours = costs.get((workload, OURS), [])
        ratios = {
            peer: median(other / own for other, own in zip(costs[workload, peer], ours, strict=False))
            for peer in _PEERS
            if ours and (workload, peer) in costs
        }
        if ratios:
            rows.append(Row(_LABELS[workload], ratios))
    return rows


def draw(rows: Sequence[Row], machine: str) -> str:
    """Return the picture."""
    return "\n".join([*_head(rows, machine), *_scale(rows), *_legend(rows), *_body(rows), "</svg>", ""])


def _head(rows: Sequence[Row], machine: str) -> Iterator[str]:
    height = _TOP + _ROW * len(rows) + 30
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="system-ui, sans-serif"'
        ' font-size="13" role="img" aria-labelledby="title desc">'
    )
    yield '<title id="title">CPU time and memory of other proxies per unit of work, relative to tunnel</title>'
    yield f'<desc id="desc">{escape("; ".join(map(_describe, rows)))}. {escape(machine)}</desc>'
    light = "".join(f".{peer}{{fill:{color}}}" for peer, (_, color, _) in _PEERS.items())
    dark = "".join(f".{peer}{{fill:{color}}}" for peer, (_, _, color) in _PEERS.items())
    yield (
        f"<style>.back{{fill:#ffffff}}.text{{fill:#1f2937}}.line{{stroke:#d1d5db}}.ours{{stroke:#1f2937}}{light}"
        f"@media(prefers-color-scheme:dark){{.back{{fill:#0d1117}}.text{{fill:#e5e7eb}}.line{{stroke:#374151}}"
        f".ours{{stroke:#e5e7eb}}{dark}}}</style>"
    )
    yield f'<rect class="back" width="{_WIDTH}" height="{height}"/>'
    yield _text(12, 22, f"Cost per unit of work, relative to {OURS}", 'font-size="15" font-weight="bold"')
    yield _text(12, height - 9, machine, 'font-size="11"')


def _describe(row: Row) -> str:
    return f"{row.label}: " + ", ".join(f"{_NAMES.get(peer, peer)} {ratio:.2f}" for peer, ratio in row.ratios.items())


def _place(ratio: float) -> float:
    """Return the horizontal position of a ratio on the logarithmic scale, within the picture."""
    least, most = math.log(_TICKS[0]), math.log(_TICKS[-1])
    share = (min(max(math.log(ratio), least), most) - least) / (most - least)
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _scale(rows: Sequence[Row]) -> Iterator[str]:
    bottom = _TOP + _ROW * len(rows)
    for tick in _TICKS:
        x, kind, width, name = (_place(tick), "ours", 2, OURS) if tick == 1 else (_place(tick), "line", 1, f"{tick:g} x")
        yield f'<path class="{kind}" d="M{x:.1f} {_TOP - 8}V{bottom}" stroke-width="{width}"/>'
        yield _text(x, _TOP - 14, name, 'text-anchor="middle"')
    yield _text(_place(1) - 45, _TOP - 32, f"cheaper than {OURS}", 'text-anchor="end" font-size="12"')
    yield _text(_place(1) + 45, _TOP - 32, f"more expensive than {OURS}", 'font-size="12"')


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text class="text" x="{x:.1f}" y="{y:.0f}" {attributes}>{escape(text)}</text>'


def _legend(rows: Sequence[Row]) -> Iterator[str]:
    x = 12.0
    for peer in (peer for peer in _PEERS if any(peer in row.ratios for row in rows)):
        name = _NAMES.get(peer, peer)
        yield f'<path class="{peer}" transform="translate({x + 6:.0f} 42)" d="{_PEERS[peer][0]}"/>'
        yield _text(x + 17, 46, name)
        x += 32 + 7.2 * len(name)


def _body(rows: Sequence[Row]) -> Iterator[str]:
    for number, row in enumerate(rows):
        top = _TOP + _ROW * number
        yield f'<path class="line" d="M12 {top + _ROW}H{_WIDTH - _RIGHT}"/>'
        yield _text(12, top + _ROW / 2 + 5, row.label)
        for place, (peer, ratio) in enumerate(row.ratios.items()):
            y = top + 8 + (_ROW - 16) * place / max(len(row.ratios) - 1, 1)
            shape = _PEERS[peer][0]
            yield f'<path class="{peer}" transform="translate({_place(ratio):.1f} {y:.1f}) scale(.8)" d="{shape}"/>'


def main(argv: Sequence[str] | None = None) -> int:
    """Write the picture of a result to standard output; 1 if the result cannot be drawn."""
    parser = argparse.ArgumentParser(prog="bench.picture", description="A picture of the costs relative to ours.")
    parser.add_argument("results", type=Path, help="what bench.run --json has written")
    given = parser.parse_args(argv)
    try:
        document = json.loads(given.results.read_text())
        rows = read_rows(document)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"bench.picture: {given.results}: {error!r}; expected a file of bench.run --json", file=sys.stderr)
        return 1
    if not rows:
        print(f"bench.picture: {given.results}: no workload has {OURS} and another peer", file=sys.stderr)
        return 1
    print(draw(rows, ", ".join(document["machine"][key] for key in ("machine", "date"))), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
