"""Prometheus text format, version 0.0.4: the lines of one metric family."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_ILLEGAL = re.compile(r"[^a-zA-Z0-9_:]")


def encode_head(name: str, kind: str, text: str = "") -> str:
    """The lines before the samples of a family: its help text, if any, and its type."""
    return (f"# HELP {name} {text}\n" if text else "") + f"# TYPE {name} {kind}\n"


def encode_sample(name: str, value: float, labels: Mapping[str, str] | None = None) -> str:
    """One sample."""
    shown = encode_labels(labels.items()) if labels else ""
    return f"{name}{{{shown}}} {encode_value(value)}\n" if shown else f"{name} {encode_value(value)}\n"


def encode_labels(labels: Iterable[tuple[str, str]]) -> str:
    """Labels as they stand between the braces."""
    return ",".join([f'{name}="{text.translate(_ESCAPES)}"' for name, text in labels])


def encode_value(value: float) -> str:
    """A number: an integer without a point, any other so that it is read as exactly this one."""
    return str(int(value)) if isinstance(value, int) else repr(value)


def legal_name(name: str) -> str:
    """The name with every character that Prometheus does not allow replaced by an underscore."""
    return _ILLEGAL.sub("_", f"_{name}" if name[:1].isdigit() else name)
