"""The process in which a policy is compiled and evaluated, so that it can be killed.

Knows the engine; must not know certificates, or anything of the proxy beyond the stream on descriptor 0. It leaves when
that stream ends. What the engine prints goes to descriptor 1, which is nobody's.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import socket
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunnel.policy.frames import FrameParser, encode_frame
from tunnel.policy.plan import find_conflict, find_fault

if TYPE_CHECKING:
    from regopy import Bundle, Interpreter, Output

_NICE = 10  # a policy yields to the traffic
_PIECE = 64 * 1024
_MEMORY_DIRECTORY = Path("/dev/shm")  # noqa: S108 - a private directory is made in it
# The engine says no more than that it failed. Nearly always it is this.
_TOO_DEEP = "the engine cannot compile it; write y := x[_] first where x[_] stands in a call or is compared with another"
_ERROR = re.compile(r"\(error(?: \d+:(?P<module>\d+)\|(?P<offset>\d+)\|\d+)?\s*\(errormsg (?P<length>\d+):")


class Refused(Exception):
    """The policy or its query cannot be used; the text says why in one line."""


class Compiled:
    """A policy ready to be asked."""

    def __init__(self, modules: list[list[str]], data: str, query: str) -> None:
        from regopy import Interpreter, LogLevel, RegoError

        self._interpreter: Interpreter = Interpreter()
        self._interpreter.log_level = LogLevel.NONE
        self._failure = RegoError
        try:
            self._interpreter.add_data_json(data)
            for number, (_, text) in enumerate(modules):
                self._interpreter.add_module(str(number), text)  # a name of the bundle's would become a path
            self._bundle: Bundle = self._interpreter.build(query)
            if not self._bundle.ok():
                raise Refused(_TOO_DEEP)
            plan = _plan(self._interpreter, self._bundle)
        except RegoError as error:
            raise Refused(one_error(str(error), modules)) from error
        if fault := find_fault(plan, self._interpreter.is_builtin) or find_conflict(plan, json.loads(data)):
            place, colon, rest = fault.partition(":")
            raise Refused(modules[int(place)][0] + colon + rest if place.isdigit() else fault)

    def ask(self, term: str) -> dict[str, Any]:
        """The answer to one input, given as JSON."""
        try:
            self._interpreter.set_input_term(term)
            output = self._interpreter.query_bundle(self._bundle)
        except (self._failure, ValueError) as error:  # of an error the engine sometimes makes an answer that is no JSON
            return {"error": f"the engine failed: {type(error).__name__}"}
        if not output.ok():
            return {"error": "the engine failed: rules give different values, or a function does not take what it is given"}
        return {"allowed": is_allowed(output)}


def is_allowed(output: Output) -> bool:
    """Exactly one result with one expression, which is true and nothing like it, and no variable bound."""
    results = [(result.expressions, result.bindings) for result in output.results]
    return len(results) == 1 and len(results[0][0]) == 1 and results[0][0][0] is True and not results[0][1]


def one_error(text: str, modules: list[list[str]]) -> str:
    """The first error of the engine's tree of them, with its place."""
    match = _ERROR.search(text)
    if match is None:
        return "the engine cannot read it"
    message = text[match.end() : match.end() + int(match["length"])]
    if match["module"] is None or int(match["module"]) >= len(modules):
        return f"query: {message}"
    name, source = modules[int(match["module"])]
    return f"{name}:{source.encode().count(10, 0, int(match['offset'])) + 1}: {message}"


def _plan(interpreter: Interpreter, bundle: Bundle) -> dict[str, Any]:
    """The plan, which the engine gives only as a file."""
    try:
        place = _MEMORY_DIRECTORY if os.access(_MEMORY_DIRECTORY, os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="tunnel-policy-", dir=place) as directory:
            interpreter.save_bundle(directory, bundle)
            plan: dict[str, Any] = json.loads(Path(directory, "plan.json").read_bytes())
            return plan
    except (OSError, ValueError) as error:
        raise Refused(f"it cannot be checked in a temporary directory: {error}") from error


def serve(channel: socket.socket) -> None:
    """Compile what the first message says, then answer one message after the other until the stream ends."""
    parser = FrameParser()
    compiled = None
    while data := channel.recv(_PIECE):
        message = parser.feed(data)
        if message is None:
            continue
        if compiled is None:
            try:
                compiled = Compiled(message["modules"], message["data"], message["query"])
            except (Refused, ImportError, OSError) as error:
                kind = "refused" if isinstance(error, Refused) else "missing"
                channel.sendall(encode_frame({kind: str(error)}))
                return
            channel.sendall(encode_frame({"ready": True}))
        else:
            channel.sendall(encode_frame(compiled.ask(message)))


def main() -> None:
    """Live for the stream on descriptor 0 alone: no signal of a terminal or a service manager ends it before its parent."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ.clear()  # a policy can read it
    channel = socket.socket(fileno=0)
    threading.Thread(target=_leave_with, args=(channel,), daemon=True).start()
    try:
        serve(channel)
    except ConnectionError:
        return


def _leave_with(channel: socket.socket) -> None:
    """End the process when the other side of the stream is gone, whatever the engine does meanwhile."""
    gone = select.poll()
    gone.register(channel, select.POLLRDHUP | select.POLLHUP)
    gone.poll()
    os._exit(0)


if __name__ == "__main__":
    main()
