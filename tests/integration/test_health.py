"""`tunnel health` and the status ports of real proxies."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.certificate_files import Pki
from tests.support.file_identities import FileIdentities
from tests.support.plain_backends import Backend, echo, free_port
from tests.support.processes import LIMIT, bare_environment, eventually
from tunnel.cli.main import main

_RUN = """
import sys
from tunnel.cli.main import main
code = main(sys.argv[1:], {})
heavy = {"trio", "grpc", "OpenSSL", "cryptography", "http.client", "prometheus_client", "asyncio"}
print(code, sorted(heavy & set(sys.modules)))
"""


def test_a_proxy_is_well_while_its_backend_answers(file_identities: FileIdentities, capsys: pytest.CaptureFixture[str]) -> None:
    where = f"127.0.0.1:{free_port()}"
    (file_identities.directory / "other").mkdir()
    other = Pki(file_identities.directory / "other")

    def health(*arguments: str) -> tuple[int, str, str]:
        return main(["health", *arguments], {}), *capsys.readouterr()

    with Backend(echo) as backend:
        server = file_identities.serve(backend.target, f"--status={where}")
        assert server.address
        assert health(where) == (0, "ok, listening\n", "")
        assert health(where, "-q") == (0, "", "")
        assert health(f"https://{where}/_metrics") == (0, "ok\n", "")
        code, out, err = health(f"https://{where}", "--json", f"--cacert={file_identities.pki.cacert}")
        assert (code, json.loads(out)["listen_address"], err) == (0, "127.0.0.1:0", "")
        assert "the server uses HTTPS" in health(f"http://{where}")[2]
        assert "404 Not Found" in health(f"https://{where}/_nothing")[2]
        assert "is not by an authority in --cacert" in health(where, f"--cacert={other.cacert}")[2]
    eventually(lambda: health(where)[0] == 1, "the last look at the backend is a second old")
    code, out, err = health(where, "--json")
    assert (code, json.loads(out)["backend_ok"]) == (1, False)
    assert err.startswith(f"tunnel health: {where}: critical: listening, backend: ")
    assert server.stop() == 0
    assert health(where, "--quiet") == (1, "", "")
    assert health(where)[2].endswith("connection refused\n")


def test_a_port_without_tls_is_asked_in_plain_http_unless_the_line_wants_more(
    file_identities: FileIdentities, capsys: pytest.CaptureFixture[str]
) -> None:
    where, path = f"127.0.0.1:{free_port()}", file_identities.directory / "status"
    with Backend(echo) as backend:
        plain = file_identities.start(
            "client", "--disable-authentication", "--listen=127.0.0.1:0", f"--target={backend.target}", f"--status={where}"
        )
        local = file_identities.serve(backend.target, f"--status=unix:{path}")
        assert plain.address
        assert local.address
        assert main(["health", where], {}) == 1
        assert "critical: listening, backend: " in capsys.readouterr().err  # there is no TLS behind it either
        for line in ([f"https://{where}"], [where, f"--cacert={file_identities.pki.cacert}"]):
            assert main(["health", *line], {}) == 1
            assert "the server does not use TLS" in capsys.readouterr().err
        assert main(["health", f"unix:{path}", "--path=/_metrics"], {}) == 0
        assert main(["health", f"unix:{path}", "--path=/ready"], {}) == 1
        assert capsys.readouterr() == ("ok\n", f"tunnel health: unix:{path} /ready: 404 Not Found\n")
        done = subprocess.run(
            [sys.executable, "-c", _RUN, "health", f"unix://{path}"],
            env=bare_environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("ok, listening\n0 []\n", ""), "and nothing heavy was loaded"
