"""How much memory this machine could give."""

from __future__ import annotations

from pathlib import Path


def free_bytes() -> float:
    """Bytes that are free or could be freed, and infinity where the machine does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return float("inf")
