"""The socket pair between the parent and a worker: messages in order, each possibly with a listening socket."""

from __future__ import annotations

import array
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Final

from tunnel.relay.loop import OUT, Loop
from tunnel.workers.codec import Decode, encode

MAX_BACKLOG: Final = 1024 * 1024  # bytes that wait for the other process; optional messages are dropped above
_HEADER: Final = struct.Struct("!IB")  # size of the message; number of sockets, 0 or 1
_MAX_MESSAGE: Final = 256 * 1024 * 1024  # bytes: credentials with 100,000 authorities are smaller
_PIECE: Final = 256 * 1024
_SLICE: Final = 0.01  # seconds
_DESCRIPTOR_SIZE: Final = array.array("i").itemsize
_ANCILLARY: Final = socket.CMSG_SPACE(8 * _DESCRIPTOR_SIZE)

OnMessage = Callable[[object, socket.socket | None], None]


class Channel:
    """One end. A message is delivered in a turn of the loop; `on_closed` is called once, when the other process has closed."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        decode: Decode,
        on_message: OnMessage,
        on_closed: Callable[[Exception | None], None],
    ) -> None:
        """Takes over the socket. `on_closed` gets the exception if a message could not be decoded or handled."""
        sock.setblocking(False)
        self._loop = loop
        self._socket = sock
        self._decode = decode
        self._on_message = on_message
        self._on_closed = on_closed
        self._received = bytearray()
        self._sockets: deque[socket.socket] = deque()
        self._unsent: deque[tuple[memoryview, int | None]] = deque()
        self.backlog = 0  # bytes that wait to be sent
        self._is_closed = False
        self._is_paused = False  # complete messages wait for the next slice
        loop.watch(sock, self._on_ready, self)

    @property
    def is_full(self) -> bool:
        """Whether the other process is so slow that optional messages should be dropped."""
        return self.backlog > MAX_BACKLOG

    def send(self, message: object, sock: socket.socket | None = None) -> None:
        """Send a message, and a copy of a socket with it; nothing happens after the other process has closed."""
        self.send_encoded(encode(message), sock)

    def send_encoded(self, data: bytes, sock: socket.socket | None = None) -> None:
        """Send a message that is encoded already."""
        if self._is_closed:
            return
        descriptor = None if sock is None else socket.dup(sock.fileno())  # it may be closed before it is sent
        self._unsent.append((memoryview(_HEADER.pack(len(data), sock is not None) + data), descriptor))
        self.backlog += _HEADER.size + len(data)
        if len(self._unsent) == 1:
            self._flush()

    def close(self) -> None:
        """Close this end; `on_closed` is not called."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.retire(self._socket)
        while self._unsent:
            self._close_descriptor(self._unsent.popleft()[1])
        for sock in self._sockets:
            sock.close()

    def crashed(self, crash: Exception) -> None:
        """Close after an unexpected message, or a bug in its handling."""
        self._end(crash)

    def _end(self, crash: Exception | None = None) -> None:
        if not self._is_closed:
            self.close()
            self._on_closed(crash)

    def _on_ready(self, events: int) -> None:
        if events & OUT:
            self._flush()
        if not self._is_paused:
            self._receive()

    # -- sending

    def _flush(self) -> None:
        try:
            while self._unsent:
                self._send_first()
        except BlockingIOError:
            return
        except OSError:  # the next read tells that the other process has closed, after its last messages
            self._drop_unsent()

    def _send_first(self) -> None:
        data, descriptor = self._unsent[0]
        if descriptor is None:
            sent = self._socket.send(data)
        else:
            sent = socket.send_fds(self._socket, [data], [descriptor])
            self._close_descriptor(descriptor)
        self.backlog -= sent
        if sent == len(data):
            self._unsent.popleft()
        else:
            self._unsent[0] = data[sent:], None

    def _drop_unsent(self) -> None:
        while self._unsent:
            self._close_descriptor(self._unsent.popleft()[1])
        self.backlog = 0

    @staticmethod
    def _close_descriptor(descriptor: int | None) -> None:
        if descriptor is not None:
            socket.close(descriptor)

    # -- receiving

    def _receive(self) -> None:
        """Read once: the next turn reads more, so that a process that sends without end does not keep the loop."""
        if self._is_closed:
            return
        try:
            data, ancillary, _flags, _address = self._socket.recvmsg(_PIECE, _ANCILLARY)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        self._take_sockets(ancillary)
        if data:
            self._received += data
            self._deliver()
        else:
            self._end()

    def _take_sockets(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors = array.array("i")
                descriptors.frombytes(data[: len(data) - len(data) % _DESCRIPTOR_SIZE])
                self._sockets.extend(socket.socket(fileno=one) for one in descriptors)

    def _deliver(self) -> None:
        """Deliver the complete messages, with a pause after each slice: connections are served in between."""
        end, start = self._loop.clock() + _SLICE, 0
        while (found := self._find_message(start)) is not None and not self._is_closed:
            message, has_socket, start = found
            self._on_message(self._decode(message), self._sockets.popleft() if has_socket else None)
            if self._loop.clock() >= end:
                self._is_paused = True
                self._loop.call_at(self._loop.clock() + _SLICE, self._resume, self)
                break
        del self._received[:start]
        if not (self._is_paused or self._is_closed):
            self._loop.call_again(self._socket)

    def _resume(self) -> None:
        self._is_paused = False
        self._deliver()

    def _find_message(self, start: int) -> tuple[bytes, bool, int] | None:
        """Return the message that begins there, whether it has a socket, and its end; None if it is not complete."""
        if len(self._received) < start + _HEADER.size:
            return None
        size, sockets = _HEADER.unpack_from(self._received, start)
        if size > _MAX_MESSAGE or sockets > 1:
            raise ValueError("not a message")
        begin = start + _HEADER.size
        end = begin + size
        return (bytes(self._received[begin:end]), bool(sockets), end) if len(self._received) >= end else None
