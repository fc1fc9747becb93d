"""The program of an evaluator process: compiles a policy and evaluates it, one JSON message at a time over a stream.

The stream is descriptor 0, and the process exits when it ends. Descriptors 1 and 2 are /dev/null, because the engine prints.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import socket
import struct
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunnel.policy.plan_check import find_conflict, find_fault

if TYPE_CHECKING:
    from regopy import Bundle, Interpreter, Output

_NICE = 10  # traffic has priority
_PIECE = 64 * 1024
_LENGTH = struct.Struct("!I")
_MEMORY_DIRECTORY = Path("/dev/shm")  # noqa: S108 - a private directory is made in it
# The engine reports only that it failed. This is nearly always the cause.
_NOT_COMPILED = "the engine cannot compile it; write y := x[_] before a call or a comparison with x[_]"
_ERROR = re.compile(r"\(error(?: \d+:(?P<module>\d+)\|(?P<offset>\d+)\|\d+)?\s*\(errormsg (?P<length>\d+):")


def encode_frame(message: Any) -> bytes:
    """Return a message with its length in front of it."""
    body = json.dumps(message).encode("ascii")
    return _LENGTH.pack(len(body)) + body


class FrameParser:
    """Reassembles messages from the pieces of a stream."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Any | None:
        """Return the message that `data` completes, or None if more bytes are needed."""
        self._buffer += data
        end = _LENGTH.size
        if len(self._buffer) >= end:
            end += _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) >= end:
                body = bytes(self._buffer[_LENGTH.size : end])
                del self._buffer[:end]
                return json.loads(body)
        return None


class InvalidPolicy(Exception):
    """The policy or the query is invalid; the message is one line."""


class Compiled:
    """A compiled policy with its query."""

    def __init__(self, modules: list[list[str]], data: str, query: str) -> None:
        from regopy import Interpreter, LogLevel, RegoError

        self._interpreter: Interpreter = Interpreter()
        self._interpreter.log_level = LogLevel.NONE
        self._failure = RegoError
        try:
            self._interpreter.add_data_json(data)
            for number, (_, text) in enumerate(modules):
                self._interpreter.add_module(str(number), text)  # the engine would use a name of the bundle as a path
            self._bundle: Bundle = self._interpreter.build(query)
            if not self._bundle.ok():
                raise InvalidPolicy(_NOT_COMPILED)
            plan = _plan(self._interpreter, self._bundle)
        except RegoError as error:
            raise InvalidPolicy(first_error(str(error), modules)) from error
        if fault := find_fault(plan, self._interpreter.is_builtin) or find_conflict(plan, json.loads(data)):
            place, colon, rest = fault.partition(":")
            raise InvalidPolicy(modules[int(place)][0] + colon + rest if place.isdigit() else fault)

    def evaluate(self, term: str) -> dict[str, Any]:
        """Return the result for one input in JSON."""
        try:
            self._interpreter.set_input_term(term)
            output = self._interpreter.query_bundle(self._bundle)
        except (self._failure, ValueError) as error:  # after an error the engine sometimes returns invalid JSON
            return {"error": f"the engine failed: {type(error).__name__}"}
        if not output.ok():
            return {"error": "the engine failed: rules have different values, or a function got an argument of a wrong type"}
        return {"allowed": is_allowed(output)}


def is_allowed(output: Output) -> bool:
    """Whether there is exactly one result with one expression, which is `true`, and no variable is bound."""
    results = [(result.expressions, result.bindings) for result in output.results]
    return len(results) == 1 and len(results[0][0]) == 1 and results[0][0][0] is True and not results[0][1]


def first_error(text: str, modules: list[list[str]]) -> str:
    """Return the first error of the engine's error tree, with its position."""
    match = _ERROR.search(text)
    if match is None:
        return "the engine cannot parse it"
    message = text[match.end() : match.end() + int(match["length"])]
    if match["module"] is None or int(match["module"]) >= len(modules):
        return f"query: {message}"
    name, source = modules[int(match["module"])]
    return f"{name}:{source.encode().count(10, 0, int(match['offset'])) + 1}: {message}"


def _plan(interpreter: Interpreter, bundle: Bundle) -> dict[str, Any]:
    """Return the plan; the engine only writes it to a file."""
    try:
        place = _MEMORY_DIRECTORY if os.access(_MEMORY_DIRECTORY, os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="tunnel-policy-", dir=place) as directory:
            interpreter.save_bundle(directory, bundle)
            plan: dict[str, Any] = json.loads(Path(directory, "plan.json").read_bytes())
            return plan
    except (OSError, ValueError) as error:
        raise InvalidPolicy(f"cannot write the plan to a temporary directory: {error}") from error


def serve(channel: socket.socket) -> None:
    """Compile the policy in the first message, then evaluate the input of each further message until the stream ends."""
    parser = FrameParser()
    compiled = None
    while data := channel.recv(_PIECE):
        message = parser.feed(data)
        if message is None:
            continue
        if compiled is None:
            try:
                compiled = Compiled(message["modules"], message["data"], message["query"])
            except (InvalidPolicy, ImportError, OSError) as error:
                kind = "invalid" if isinstance(error, InvalidPolicy) else "missing"
                channel.sendall(encode_frame({kind: str(error)}))
                return
            channel.sendall(encode_frame({"ready": True}))
        else:
            channel.sendall(encode_frame(compiled.evaluate(message)))


def main() -> None:
    """Serve the stream on descriptor 0. Signals of terminals and service managers are ignored: the parent ends the process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ.clear()  # policies can read it
    channel = socket.socket(fileno=0)
    threading.Thread(target=_exit_with, args=(channel,), daemon=True).start()
    try:
        serve(channel)
    except ConnectionError:
        return


def _exit_with(channel: socket.socket) -> None:
    """Exit when the other end of the stream is closed, even while the engine runs."""
    closed = select.poll()
    closed.register(channel, select.POLLRDHUP | select.POLLHUP)
    closed.poll()
    os._exit(0)


if __name__ == "__main__":
    main()
