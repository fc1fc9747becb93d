"""The settings of a tunnel for a configuration."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from tunnel.config.model import Access, NoIdentity, ProxyConfig
from tunnel.net.address import TcpAddress
from tunnel.proxy.settings import tunnel_settings


def test_a_private_tunnel_is_for_the_user_whose_sockets_the_kernel_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The effective user ID counts: in a set-user-ID program the real one is that of the caller."""
    config = ProxyConfig(False, TcpAddress("127.0.0.1", "0"), TcpAddress("a.test", "1"), NoIdentity(), Access(()))
    monkeypatch.setattr(os, "getuid", lambda: 1)
    monkeypatch.setattr(os, "geteuid", lambda: 2)
    assert tunnel_settings(replace(config, is_private=True)).only_user == 2
    assert tunnel_settings(config).only_user is None
