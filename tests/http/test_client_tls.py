"""HTTPS clients verify the server and refuse protocols before TLS 1.2, whatever the interpreter's build allows."""

from __future__ import annotations

import ast
import ssl
from pathlib import Path

import pytest

import tunnel
from tunnel.http.client import empty_context, parse_http_url, system_context
from tunnel.status.client import open_client_context
from tunnel.status.reporters import open_post_target

REPORTS = open_post_target(parse_http_url("https://x/"), None).context
PACKAGE = Path(tunnel.__file__).parent
MAKERS = {"SSLContext", "create_default_context", "_create_unverified_context", "_create_stdlib_context"}


@pytest.mark.parametrize("context", [system_context(), empty_context(), REPORTS])
def test_the_server_is_verified(context: ssl.SSLContext) -> None:
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize("context", [system_context(), empty_context(), REPORTS, open_client_context("")])
def test_no_protocol_before_tls_1_2_is_used(context: ssl.SSLContext) -> None:
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_only_one_module_makes_contexts_of_the_standard_library() -> None:
    made = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MAKERS
    }
    assert made == {"http/client.py"}
