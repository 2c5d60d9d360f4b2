"""What a request may ask for at most, and the one error that says why it was refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of a service."""

    body_bytes: int = 1_000_000
    """Size of a request's body."""
    k: int = 1_000
    """Length of a list."""
    ids: int = 1_000
    """Ids in one history, filter, or row of candidates."""
    instances: int = 256
    """Rows of one predict request."""
    seconds: float = 10.0
    """Time for an answer."""
    queue: int = 1_024
    """Rows that wait for one function of a model."""


class Refused(Exception):
    """A request that is answered with an error.

    Args:
        status: of HTTP, 400 or above.
        field: what of the request is wrong; None: none of it.
        message: for the one who asked; has nothing of the host.
    """

    def __init__(self, status: int, field: str | None, message: str) -> None:
        super().__init__(message)
        self.status, self.field, self.message = status, field, message

    def body(self) -> dict[str, str]:
        """The answer; TensorFlow Serving's errors have ``error`` too."""
        return {"error": self.message, **({} if self.field is None else {"field": self.field})}


def shown(value: object, length: int = 80) -> str:
    """A value of a request for a message: quoted, and cut where it is long."""
    text = repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."
