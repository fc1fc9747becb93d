"""Errors hide everything that looks like a key, a token or a password."""

from __future__ import annotations

import pytest

from tunnel.errors import (
    ConfigError,
    IdentityError,
    IdentityFault,
    IdFault,
    PolicyError,
    PolicyFault,
    SpiffeIdError,
    TokenError,
    TokenFault,
    TunnelError,
    hide_secrets,
)

SECRET = "canary-secret"
HIDDEN = [
    "cannot read '-----BEGIN PRIVATE KEY-----\\nMIGHAgEAcanary-secret\\n-----END PRIVATE KEY-----\\n': no such file",
    'invalid duration "-----BEGIN EC PRIVATE KEY----- canary-secret"',
    f"cannot read 'MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg{'A' * 40}canary-secret': no such file",
    "unexpected eyJhbGciOiJFUzI1NiJ9.canary-secret.canary-secret",
    "'tcp://me:canary-secret@127.0.0.1:1': user name",
    "'socks5://me:p/canary-secret@proxy:1': unknown scheme",
    "'spiffe://canary-secret@a.test/x': invalid character in trust domain",
    "'me:canary-secret@host:1' has too many colons",
    "me:canary-secret@host is bare",
    "cannot write /x/https%3A%2F%2Fme%3Acanary-secret%40acme.test/account.pem: full",
]
SHOWN = [
    'invalid duration "foo"; expected a duration such as 250ms, 10s or 1h30m',
    'invalid address "unix:/run/x@y:z": missing port',
    "'unix:@abstract:name@x' names no socket",
    "'a@b@c' is not one e-mail address",
    "cannot read '/etc/tls/MIIE.pem': no such file or directory",
    "'/run/secrets/eyJ/key.pem'",
    "SVID 'spiffe://example.org/ns/prod/sa/web': unreadable private key",
    'invalid SPKI pin "sha256:AAAA@": expected ALGORITHM:BASE64',
]


@pytest.mark.parametrize("text", HIDDEN)
def test_texts_like_secrets_are_hidden(text: str) -> None:
    errors: list[TunnelError] = [
        ConfigError(text),
        IdentityError(IdentityFault.FILE, text),
        PolicyError(PolicyFault.INVALID, text),
        TokenError(TokenFault.MALFORMED, text),
        SpiffeIdError(IdFault.SCHEME, text),
    ]
    for said in (hide_secrets(text), *map(str, errors), *map(repr, errors)):
        assert SECRET not in said
        assert "(hidden)" in said


@pytest.mark.parametrize("text", SHOWN)
def test_other_texts_are_shown(text: str) -> None:
    assert hide_secrets(text) == text
