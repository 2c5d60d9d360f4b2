"""Requests into values: a body of JSON, the fields of an address."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import orjson
from starlette.requests import Request

from tfrec.service.limits import Limits, Refused, shown

#: Of a body that is too large this many times the limit is read, so that its sender gets to see the answer.
_DRAINED = 8


async def read_json(request: Request, limits: Limits) -> Any:
    """The body as JSON.

    Raises:
        Refused: 413 for one that is too large, 400 for one that is no JSON, or has NaN or infinity.
    """
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and len(length) < 20 and int(length) > _DRAINED * limits.body_bytes:
        raise _too_large(limits)
    size, parts = 0, []
    async for part in request.stream():
        size += len(part)
        if size <= limits.body_bytes:
            parts.append(part)
        elif size > _DRAINED * limits.body_bytes:
            break
    if size > limits.body_bytes:
        raise _too_large(limits)
    try:
        return orjson.loads(b"".join(parts))
    except orjson.JSONDecodeError as error:
        why = f"{error.msg} at place {error.pos}"
        raise Refused(400, "body", f"The body must be JSON in UTF-8, without NaN or infinity: {why}.") from error


class Fields:
    """The fields of an address, each known and given as often as it may be.

    Args:
        request: with them.
        single: names that may be given once.
        several: names that may be given again and again.
        limits: bounds.

    Raises:
        Refused: another name, one that is given twice, or too many.
    """

    def __init__(self, request: Request, single: Iterable[str], several: Iterable[str], limits: Limits) -> None:
        single, several = tuple(single), tuple(several)
        self._values: dict[str, list[str]] = {}
        for name, value in request.query_params.multi_items():
            if name not in single and name not in several:
                known = ", ".join((*single, *several))
                raise Refused(400, name[:80], f"Unknown field {shown(name)}. There are {known}.")
            self._values.setdefault(name, []).append(value)
        for name, values in self._values.items():
            most = 1 if name in single else limits.ids
            if len(values) > most:
                raise Refused(400, name, f"{name} may be given {most} times. Received: {len(values)}.")

    def one(self, name: str) -> str | None:
        """The value of a field, None where it is not given."""
        return self._values[name][0] if name in self._values else None

    def needed(self, name: str) -> str:
        """The value of a field that must be given."""
        found = self.one(name)
        if found is None:
            raise Refused(400, name, f"{name} must be given.")
        return found

    def all(self, name: str) -> list[str] | None:
        """The values of a field, None where it is not given."""
        return self._values.get(name)

    def count(self, name: str, default: int, most: int, least: int = 1) -> int:
        """A whole number from ``least`` to ``most``; where it is not given, ``default`` or ``most``, what is less."""
        text = self.one(name)
        if text is None:
            return min(default, most)
        if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise Refused(400, name, f"{name} must be a whole number from {least} to {most}. Received: {shown(text)}.")
        return int(text)


def _too_large(limits: Limits) -> Refused:
    return Refused(413, "body", f"The body may have {limits.body_bytes} bytes.")
