"""The policy engine in a separate process, as in the program: next to other native libraries it may abort."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from functools import cache
from typing import Any

from tunnel.policy.evaluator import InvalidPolicy

_SERVE = """
import json, sys
from tunnel.policy.evaluator import Compiled, InvalidPolicy
for line in sys.stdin:
    modules, data, query, terms = json.loads(line)
    try:
        compiled = Compiled(modules, data, query)
        answer = [compiled.evaluate(term) for term in terms]
    except InvalidPolicy as error:
        answer = str(error)
    sys.__stderr__.write(json.dumps(answer) + "\\n")
"""


def ask_engine(modules: list[list[str]], data: str, query: str, *terms: str) -> list[dict[str, Any]]:
    """The answer to each term, given as JSON, from one compiled policy; raises InvalidPolicy for one that does not compile."""
    engine = _engine()
    assert engine.stdin is not None
    assert engine.stderr is not None
    engine.stdin.write(json.dumps([modules, data, query, terms]) + "\n")
    engine.stdin.flush()
    answer = json.loads(engine.stderr.readline())
    if isinstance(answer, str):
        raise InvalidPolicy(answer)
    found: list[dict[str, Any]] = answer
    return found


@cache
def _engine() -> subprocess.Popen[str]:
    """It ends with its standard input, and so with this process; output of the engine is discarded."""
    engine = subprocess.Popen(
        [sys.executable, "-c", _SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="ascii",
    )
    atexit.register(engine.communicate)
    return engine
