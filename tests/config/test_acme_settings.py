"""The settings of ACME give one value or one error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunnel.config.acme import LETS_ENCRYPT, AcmeConfig, complete_acme
from tunnel.config.model import Acme
from tunnel.errors import ConfigError
from tunnel.lazy_dataclass import replace

HOME = {"HOME": "/home/u"}
CHOSEN = Acme("www.example.org", "a@example.org", "", 600.0, 443)


def complete(environ: dict[str, str] = HOME, **changed: Any) -> AcmeConfig:
    return complete_acme(replace(CHOSEN, **changed), environ)


def test_a_name_and_an_address_are_enough() -> None:
    assert complete() == AcmeConfig(
        domain="www.example.org",
        email="a@example.org",
        directory_url=LETS_ENCRYPT,
        storage_dir=Path("/home/u/.local/share/tunnel/acme"),
        ca_trust=None,
        challenge_port=443,
        check_interval=600,
    )


@pytest.mark.parametrize(
    ("changed", "field", "value"),
    [
        ({"directory_url": "https://ca/dir"}, "directory_url", "https://ca/dir"),
        ({"domain": "WWW.Example.org."}, "domain", "www.example.org"),
        ({"domain": "localhost"}, "domain", "localhost"),
        ({"domain": "xn--bcher-kva.example"}, "domain", "xn--bcher-kva.example"),
        ({"challenge_port": 5001}, "challenge_port", 5001),
        ({"check_interval": 1.5}, "check_interval", 1.5),
        ({"environ": {"XDG_DATA_HOME": "/data"}}, "storage_dir", Path("/data/tunnel/acme")),
        ({"environ": HOME | {"XDG_DATA_HOME": "data"}}, "storage_dir", Path("/home/u/.local/share/tunnel/acme")),
        ({"environ": HOME | {"SSL_CERT_FILE": "/roots.pem"}}, "ca_trust", Path("/roots.pem")),
    ],
)
def test_each_setting_has_its_effect(changed: dict[str, Any], field: str, value: object) -> None:
    assert getattr(complete(**changed), field) == value


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"email": "nobody"}, "expected one e-mail address"),
        ({"email": "a@b.org,c@d.org"}, "expected one e-mail address"),
        ({"email": "a@b.org\n"}, "expected one e-mail address"),
        ({"domain": "*.example.org"}, "wildcard"),
        ({"domain": "192.0.2.1"}, "expected the full name"),
        ({"domain": "a..b"}, "expected the full name"),
        ({"domain": "-a.b"}, "expected the full name"),
        ({"domain": "a_b.c"}, "expected the full name"),
        ({"domain": "../a"}, "expected the full name"),
        ({"domain": "b\u00fccher.example"}, "expected the full name"),
        ({"domain": f"{'a' * 64}.b"}, "expected the full name"),
        ({"domain": ".".join(["a" * 60] * 5)}, "expected the full name"),
        ({"domain": "a.b\n"}, "expected the full name"),
        ({"directory_url": "http://ca/dir"}, "expected an https:// URL"),
        ({"directory_url": "ca.example"}, "expected an https:// URL"),
        ({"challenge_port": 0}, "invalid port"),
        ({"challenge_port": 65536}, "invalid port"),
        ({"environ": {}}, "expected XDG_DATA_HOME or HOME set"),
        ({"environ": {"XDG_DATA_HOME": "data", "HOME": "home"}}, "expected XDG_DATA_HOME or HOME set"),
    ],
)
def test_each_wrong_setting_is_refused_in_one_line(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as refused:
        complete(**changed)
    assert str(refused.value).isprintable()
