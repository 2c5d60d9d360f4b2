"""Rank 0 alone touches the output folder; the other ranks learn how it went."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from tfrec import distributed
from tfrec.errors import InputError, RankLostError, SharedError

if TYPE_CHECKING:
    from tfrec.runs.folder import RunFolder

T = TypeVar("T")

#: How long a file may need until other hosts see it, or a lock until a lost host's is gone.
_SHARED_SECONDS = 10.0


def on_rank_zero(do: Callable[[], T]) -> T:
    """The JSON value of ``do()``, called on rank 0 only, on every rank.

    Raises:
        SharedError: on every rank, when `InputError` was raised on rank 0.
        RankLostError: on the other ranks, when another error was; rank 0 prints that.
    """
    if distributed.size() == 1:
        return do()
    outcome: dict[str, Any] = {}
    problem: Exception | None = None
    if distributed.rank() == 0:
        try:
            outcome = {"value": do()}
        except Exception as error:
            problem = error
            outcome = {"input" if isinstance(error, InputError) else "other": str(error)}
    outcome = distributed.broadcast_json(outcome)
    if "input" in outcome:
        raise SharedError(outcome["input"]) from problem
    if "other" in outcome:
        raise problem or RankLostError(f"Rank 0 stopped: {outcome['other']}", told=True)
    return outcome["value"]


def claim_together(
    folder: RunFolder, identity: dict[str, Any], data_sha256: str | None, resume: bool, *, elastic: bool
) -> None:
    """Rank 0 claims the folder. Every process must call it.

    Args:
        folder: to be claimed.
        identity: see `RunFolder.claim`.
        data_sha256: see there.
        resume: see there.
        elastic: any rank may become rank 0, so each must see the folder.

    Raises:
        SharedError: as `RunFolder.claim`.
        InputError: on a rank that joins and does not see the folder.
    """
    on_rank_zero(lambda: folder.claim(identity, data_sha256, resume))
    if not elastic:
        return
    # Content that no earlier run on a rank's own disk can have.
    token = on_rank_zero(lambda: _write(folder, secrets.token_hex(8)))
    seen = _wait_for(lambda: _read(folder) == token)
    distributed.exchange(None, "where all have looked for the output folder")
    on_rank_zero(lambda: folder.token.unlink(missing_ok=True))
    distributed.agree(
        {f"{folder.path} is rank 0's folder": seen},
        "Ranks do not share the output folder",
        "Of an elastic run any rank may have to write it: name an --output-dir on a disk that all hosts share.",
    )


def _write(folder: RunFolder, token: str) -> str:
    from tfrec.data.files import atomic_write

    with atomic_write(folder.token, "w") as stream:
        stream.write(token)
    return token


def _read(folder: RunFolder) -> str | None:
    try:
        return folder.token.read_text()
    except OSError:
        return None


def _wait_for(condition: Callable[[], bool]) -> bool:
    ends = time.monotonic() + _SHARED_SECONDS
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.1)
    return True
