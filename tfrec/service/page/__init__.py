"""The page at ``/``: static files, which ask the addresses of the service for everything they show."""

from __future__ import annotations

from importlib import resources

_TYPES = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
#: Address -> file.
_FILES = {
    "/": "index.html",
    **{f"/page/{name}": name for name in ("style.css", "main.js", "api.js", "chart.js", "combobox.js", "elements.js")},
}
#: Scripts, styles and requests of this service only, and no frame around it.
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}


def files() -> dict[str, tuple[bytes, str]]:
    """Address -> content and its type."""
    folder = resources.files(__name__)
    return {
        address: ((folder / name).read_bytes(), _TYPES[name.rpartition(".")[2]]) for address, name in _FILES.items()
    }
