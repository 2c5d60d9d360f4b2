"""How much memory this process has, as Linux counts it."""

from pathlib import Path


def resident_bytes(field: str) -> int:
    """``VmRSS`` (now), ``VmHWM`` (highest so far) or ``RssAnon`` (now, without what is mapped from files).

    Unlike ``getrusage`` it does not start from the parent's.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")
