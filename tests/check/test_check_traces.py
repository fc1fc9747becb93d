"""The check of traces finds what would prevent the start, without a connection to the collector."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tunnel.check.diagnosis import examine_traces
from tunnel.check.finding import Finding, ok, problem
from tunnel.config.model import Traces

ADVICE = "install the extra, or correct the URL or the file of --traces-ca"


def test_usable_settings_are_ok_even_if_there_is_no_collector() -> None:
    assert examine_traces(Traces("http://127.0.0.1:1/v1/traces", 0.5)) == ok(
        "traces", "OpenTelemetry is installed; a share of 0.5 of the connections is traced"
    )


def test_a_file_without_certificates_is_a_problem(tmp_path: Path) -> None:
    found = examine_traces(Traces("https://127.0.0.1:1/v1/traces", ca_bundle=str(tmp_path / "none.pem")))
    assert found.name == "traces"
    assert found == problem("traces", found.detail, ADVICE)
    assert "none.pem: cannot read certificates" in found.detail


def test_a_missing_library_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "tunnel.tracing.otlp", raising=False)
    found: Finding = examine_traces(Traces("http://127.0.0.1:1/v1/traces"))
    assert found == problem("traces", found.detail, ADVICE)
    assert "spiffe-tunnel[otel]" in found.detail
