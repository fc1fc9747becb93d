"""`tunnel svid jwt` and `svid jwt verify`, from the command line to the output."""

from __future__ import annotations

import base64
import io
import json
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.jwt_factory import jwk, jwks, token
from tunnel.cli.main import main
from tunnel.config.dev_model import Entry
from tunnel.devapi.api import DevWorkloadApi
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.spiffe.jwt import parse_token

X, Z = Entry(parse_spiffe_id("spiffe://a.test/x")), Entry(parse_spiffe_id("spiffe://a.test/z"), "inner")
FAR = 4_000_000_000  # a moment that these tests will not see
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs a line: its exit code, standard output and standard error."""
    endpoint = WorkloadEndpoint(path=str(tmp_path / "api.sock"))

    def ran(*line: str, feed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(feed.encode())))
        code = main(["svid", "jwt", *line], {"SPIFFE_ENDPOINT_SOCKET": str(endpoint)})
        return (code, *capsys.readouterr())

    with DevWorkloadApi({endpoint: [X, Z]}):
        yield ran


def test_a_token_is_printed_shown_or_told_as_json(run: Run) -> None:
    code, out, err = run("--audience=db", "--spiffe-hint=inner")
    assert (code, err, parse_token(out.strip()).claims["sub"]) == (0, "", "spiffe://a.test/z")
    code, out, err = run("--audience=db", "--spiffe-hint=inner", "--decode")
    assert (code, err, out.count("\n")) == (0, "", 9)
    assert "  sub: spiffe://a.test/z\n" in out
    code, out, err = run("--audience=db", "--spiffe-hint=inner", "--json")
    found = json.loads(out)
    assert (found["spiffe_id"], found["hint"], found["audience"]) == ("spiffe://a.test/z", "inner", ["db"])
    assert parse_token(found["token"]).claims == found["claims"]
    assert "token" not in json.loads(run("--audience=db", "--spiffe-hint=inner", "--json", "--decode")[1])


def test_the_first_of_several_is_used_with_a_warning(run: Run) -> None:
    code, out, err = run("--audience=db")
    assert (code, parse_token(out.strip()).claims["sub"], err.count("\n")) == (0, "spiffe://a.test/x", 1)
    assert "2 SVIDs offered" in err


def test_a_file_gets_the_token_and_standard_output_nothing(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "token"
    code, out, _ = run("--audience=db", "--spiffe-hint=inner", f"--out={path}")
    assert (code, out, stat.S_IMODE(path.stat().st_mode)) == (0, "", 0o600)
    assert parse_token(path.read_text()).claims["sub"] == "spiffe://a.test/z"
    assert run("--audience=db", "--spiffe-hint=inner", f"--out={tmp_path}/none/token")[0] == 1


def test_a_token_is_judged_by_a_bundle_that_says_whose_it_is(run: Run, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.json"
    bundle.write_bytes(jwks(jwk()))
    good = token(exp=FAR)
    code, out, err = run("verify", "--audience=db", f"--bundle=a.test={bundle}", feed=f"{good}\n")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith("valid: spiffe://a.test/w for 'db' until 2096-")
    code, out, err = run("verify", "--audience=db", f"--bundle=b.test={bundle}", feed=good)
    assert (code, err, out.splitlines()[-1]) == (1, "", "not valid: key: a.test: no bundle for it")


def test_bundles_are_printed_or_written_by_trust_domain_and_judge_a_token(run: Run, tmp_path: Path) -> None:
    code, out, err = run("bundles")
    assert (code, err) == (0, "")
    (document,) = json.loads(out).items()
    assert document[0] == "a.test"
    bundle, path = tmp_path / "bundle.json", tmp_path / "bundles.json"
    bundle.write_bytes(base64.b64decode(document[1], validate=True))
    fetched = run("--audience=db", "--spiffe-hint=inner")[1]
    assert run("verify", "--audience=db", f"--bundle=a.test={bundle}", feed=fetched)[0] == 0
    assert run("bundles", f"--out={path}")[:2] == (0, "")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (out.strip(), 0o644)


@pytest.mark.parametrize(("feed", "complaint"), [("", "standard input: no token"), ("A" * 70000, "token too long")])
def test_what_is_no_token_at_all_is_one_line(feed: str, complaint: str, run: Run) -> None:
    code, out, err = run("verify", "--audience=db", feed=feed)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert complaint in err


def test_a_bundle_that_cannot_be_read_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("{}")
    for name, complaint in (("bad", "missing list of keys"), ("none", "no such file")):
        code, out, err = run("verify", "--audience=db", f"--bundle=a.test={tmp_path}/{name}", feed=token())
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert complaint in err
