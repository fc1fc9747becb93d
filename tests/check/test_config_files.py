"""`tunnel config check --files` reports the files that a start could not use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.certificate_files import HOUR
from tests.support.file_identities import FileIdentities
from tunnel.cli.main import main

LISTENER = '[[server]]\nname = "web"\nlisten = ":8443"\ntarget = "localhost:1"\n'
ACCESS = 'access = [{ allow = { cn = "client" } }]\n'


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[FileIdentities]:
    with closing(FileIdentities(tmp_path)) as file_identities:
        yield file_identities


def identity_of(pair: FileIdentities, *lines: str) -> str:
    files = pair.server_files
    keys = (f'cert = "{files.chain}"', f'key = "{files.key}"', f'ca = "{pair.pki.cacert}"', *lines)
    return "\n".join(("[identity.files]", *keys, ""))


def check(place: Path, text: str, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str, str]:
    file = place / "tunnel.toml"
    file.write_text(text)
    code = main(["config", "check", *flags, str(file)], {})
    return (code, *capsys.readouterr())


def test_files_that_can_be_used_are_no_problem(
    pair: FileIdentities, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = check(tmp_path, identity_of(pair) + LISTENER + ACCESS, capsys, "--files")
    assert found == (0, "ok: 1 file, 1 server, 1 identity, 0 warnings\n", "")


def test_without_the_flag_no_file_is_read(pair: FileIdentities, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair.server_files.chain.unlink()
    assert check(tmp_path, identity_of(pair) + LISTENER + ACCESS, capsys)[0] == 0


def test_the_problem_of_each_identity_and_policy_is_reported(
    pair: FileIdentities, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair.server_files.chain.unlink()
    (tmp_path / "bad.crl").write_text("rubbish")
    other = LISTENER.replace("web", "db").replace(":8443", ":8444")
    text = (
        identity_of(pair)
        + '[identity.agent]\nworkload-api = "unix:///nonexistent"\ncrl = "bad.crl"\n'
        + f'{LISTENER}identity = "files"\naccess = {{ policy = "absent.rego", query = "data.policy.allow" }}\n'
        + f'{other}identity = "agent"\naccess = [{{ allow = "spiffe://a.test/w" }}]\n'
    )
    code, out, err = check(tmp_path, text, capsys, "--files")
    assert (code, out) == (1, "")
    files, agent, policy = err.splitlines()
    assert files == f"identity.files: cannot read '{pair.server_files.chain}': no such file or directory"
    assert agent.startswith(f"identity.agent: '{tmp_path}/bad.crl': ")
    assert policy.startswith("server web: Invalid rego policy or query: ")
    report = json.loads(check(tmp_path, text, capsys, "--files", "--json")[1])
    assert [(one["file"], one["key"]) for one in report["errors"][:1]] == [(None, "identity.files")]


def test_an_expired_revocation_list_is_a_warning(
    pair: FileIdentities, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = [
        pair.pki.revocation_list("root", pair.pki.root, ends_in=-HOUR),
        pair.pki.revocation_list("middle", pair.pki.middle),
    ]
    crl = f"crl = {json.dumps([str(path) for path in lists])}"
    code, out, err = check(tmp_path, identity_of(pair, crl) + LISTENER + ACCESS, capsys, "--files")
    assert (code, out) == (0, "ok: 1 file, 1 server, 1 identity, 1 warning\n")
    assert err.startswith("warning: identity.files: revocation list of 'CN=pki root' expired at ")
