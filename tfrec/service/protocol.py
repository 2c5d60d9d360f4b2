"""uvicorn's HTTP protocol, with bounds on what comes before a handler is asked: a request's head."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Bytes of a head that has not ended.
_HEAD_BYTES = 65_536


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose request's line and headers do not end: too slow, or too long.

    Without it, a client that sends a byte now and then keeps a connection open, and one that sends headers without
    end fills the memory.
    """

    #: Until a head is whole, from the connection or from its first byte.
    head_seconds: float = 10.0

    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_head = False

    def connection_made(self, transport: Any) -> None:
        """A client is there."""
        super().connection_made(transport)
        self._start()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._start()

    def on_headers_complete(self) -> None:
        """The end of a head."""
        self._in_head = False
        self._stop()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Some bytes of a request."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._stop()
        super().connection_lost(exc)

    def _start(self) -> None:
        self._stop()
        self._timer = self.loop.call_later(self.head_seconds, self.transport.close)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def bounded(head_seconds: float) -> type[BoundedProtocol]:
    """The protocol with its time limit."""
    return type("Protocol", (BoundedProtocol,), {"head_seconds": head_seconds})
