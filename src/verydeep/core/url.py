"""HTTP downloads. Nothing in this package opens a URL that its user has not named."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from importlib.metadata import version
from typing import Any
from urllib.parse import quote, urlsplit

SECONDS = 30.0  # timeout of a connection that sends nothing
FAULTS = (OSError, ValueError, http.client.HTTPException)  # of `open_url`, and of reading what it returns
AS_IS = "/%:@!$&'()*+,;=~?[]"  # not escaped in a URL's path and query


def is_url(text: str) -> bool:
    """Whether a text is an http(s) URL."""
    return text.lower().startswith(("https://", "http://"))


def open_url(url: str, headers: dict[str, str] | None = None) -> Any:
    """The response of an http(s) server, an open file; raises one of `FAULTS`."""
    parts = urlsplit(url)
    host = parts.netloc.encode("idna").decode()
    encoded = parts._replace(netloc=host, path=quote(parts.path, AS_IS), query=quote(parts.query, AS_IS))
    agent = {"User-Agent": f"verydeep/{version('verydeep')}"}  # some servers refuse Python's own
    request = urllib.request.Request(encoded.geturl(), headers=agent | (headers or {}))
    return urllib.request.urlopen(request, timeout=SECONDS)


def why_not(url: str, fault: Exception) -> str:
    """What is wrong with a URL that raised one of `FAULTS`, as the beginning of a sentence."""
    lines = str(getattr(fault, "reason", "") or fault).splitlines()
    reason = lines[0].rstrip(".") if lines else type(fault).__name__
    if isinstance(fault, urllib.error.HTTPError):
        return f"{url} returns {fault.code} ({reason})"
    return f"cannot reach {url} ({reason})"
