"""Prometheus text format, version 0.0.4: the lines of one metric family."""

from __future__ import annotations

import re
from collections.abc import Mapping

PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_ILLEGAL = re.compile(r"[^a-zA-Z0-9_:]")


def encode_head(name: str, kind: str, text: str = "") -> str:
    """The lines before the samples of a family: its help text, if any, and its type."""
    return (f"# HELP {name} {text}\n" if text else "") + f"# TYPE {name} {kind}\n"


def encode_sample(name: str, value: float, labels: Mapping[str, str] | None = None) -> str:
    """One sample."""
    shown = ",".join(f'{label}="{text.translate(_ESCAPES)}"' for label, text in labels.items()) if labels else ""
    return f"{name}{{{shown}}} {_encode_value(value)}\n" if shown else f"{name} {_encode_value(value)}\n"


def _encode_value(value: float) -> str:
    return str(int(value)) if isinstance(value, int) else repr(value)


def legal_name(name: str) -> str:
    """The name with every character that Prometheus does not allow replaced by an underscore."""
    return _ILLEGAL.sub("_", f"_{name}" if name[:1].isdigit() else name)
