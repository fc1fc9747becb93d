"""Compare the Go column of the table with Go's verifier: `python tests/support/odd_certificates/ask_go.py`, Go 1.24+."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[3])]

from tests.support.odd_certificates.cases import ROLES  # noqa: E402
from tests.support.odd_certificates.factory import HOST, Chain  # noqa: E402
from tests.support.odd_certificates.table import CASES, chain_of  # noqa: E402

_GO_VERIFIER = Path(__file__).parent / "go_verifier"
_OLDEST_GO = (1, 24)  # older ones accept negative serial numbers and short RSA keys, and know no policies


def main() -> int:
    """Print every case in which Go's verdict is not that of the column; the number of the exit code says if there was one."""
    with tempfile.TemporaryDirectory() as directory:
        answers = _ask_go(Path(directory))
    wrong = [case.name for case in CASES if _go_verdicts(answers[case.name]) != case.go]
    for name in wrong:
        print(name, answers[name])
    print(f"{len(CASES)} cases, {len(wrong)} differences")
    return 1 if wrong else 0


def _ask_go(tmp_path: Path) -> dict[str, dict[str, str]]:
    program = tmp_path / "go_verifier"
    argv = [_go(), "build", "-o", str(program), "."]
    environ = {"PATH": "/usr/bin:/bin", "GOCACHE": str(tmp_path / "cache"), "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
    subprocess.run(argv, cwd=_GO_VERIFIER, check=True, capture_output=True, env=environ)
    asked = "".join(_question(case.name, chain_of(case)) for case in CASES)
    answered = subprocess.run([program], input=asked, check=True, capture_output=True, text=True).stdout
    return {answer["name"]: answer for answer in map(json.loads, answered.splitlines())}


def _go() -> str:
    """The path of a Go that is new enough."""
    path = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if path is None:
        sys.exit("no go command")
    said = subprocess.run([path, "env", "GOVERSION"], check=True, capture_output=True, text=True).stdout
    version = re.match(r"go(\d+)\.(\d+)", said)
    if version is None or tuple(map(int, version.groups())) < _OLDEST_GO:
        sys.exit(f"{said.strip()} is too old; expected go{_OLDEST_GO[0]}.{_OLDEST_GO[1]} or newer")
    return path


def _question(name: str, chain: Chain) -> str:
    anchors, sent = ([base64.b64encode(one.der).decode() for one in several] for several in (chain.anchors, chain.sent))
    return json.dumps({"name": name, "anchors": anchors, "chain": sent, "host": HOST}) + "\n"


def _go_verdicts(answer: dict[str, str]) -> tuple[bool, ...]:
    return tuple(answer[role] == "" for role in ROLES)


if __name__ == "__main__":
    sys.exit(main())
