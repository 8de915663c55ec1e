"""schemathesis and httplint against a running server, requests that are read in two ways, and clients that never end.

    PYTHONPATH=tests:tests/deploy python tests/external/http_server.py     # make suites installs what it needs

The server has a small net, a localisation model and a features file, on this machine alone. No response may have status
500, 503 comes with Retry-After and at a limit only, every response is one that /openapi.json declares, another client
is served while thousands are connected, and in the end memory and open files are what they were.
"""

from __future__ import annotations

import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from servers import Running, make_served, photo, running
from suites import SuiteResult, store, versions_of

EXAMPLES, CONNECTIONS, SLOW, MEGABYTES = 50, 10_000, 1000, 100
HOST, BODY = b"Host: localhost\r\n", photo()
GET, POST = b"GET /health HTTP/1.1\r\n", b"POST /predict HTTP/1.1\r\n"
LENGTH, CHUNKED = b"Content-Length: %d\r\n" % len(BODY), b"Transfer-Encoding: chunked\r\n"
CHUNK = b"%x\r\n%s\r\n" % (len(BODY), BODY)
PHOTO, PIECES, END = HOST + LENGTH, POST + HOST + CHUNKED + b"\r\n", b"0\r\n\r\n"
ADDRESSES: tuple[str, ...] = (
    "evil.example",
    "localhost.evil.example",
    "[::1].evil.example",
    "localhost:evil.example",
    "[localhost]",
)
ADDRESSES += ("evil.example@localhost", "localhost, evil.example", "localhost/evil.example", "0.0.0.0", "")
REQUESTS: dict[str, tuple[bytes, str]] = {  # what is sent, and the statuses that it may have
    "two kinds of length": (POST + PHOTO + CHUNKED + b"\r\n" + CHUNK + END, "400"),
    "a second request behind two kinds of length": (
        POST + HOST + b"Content-Length: 4\r\n" + CHUNKED + b"\r\n" + END,
        "400",
    ),
    "two lengths": (POST + PHOTO + b"Content-Length: 5\r\n\r\n" + BODY, "400"),
    "two lengths in one": (POST + HOST + b"Content-Length: %d, 5\r\n\r\n" % len(BODY) + BODY, "400"),
    "equal lengths": (POST + PHOTO + LENGTH + b"\r\n" + BODY, "200 400"),
    **{
        f"a length of {length.decode()[:9]!r}": (
            POST + HOST + b"Content-Length: " + length + b"\r\n\r\n" + BODY,
            "400 413",
        )
        for length in (b"+9", b"-1", b"0x10", b"1_0", b"", b"9" * 19, b"9" * 5000, b"\xd9\xa1")
    },
    **{
        f"a coding of {coding.decode()!r}": (
            POST + HOST + b"Transfer-Encoding:" + coding + b"\r\n\r\n" + CHUNK + END,
            "400",
        )
        for coding in (b" gzip, chunked", b" xchunked", b" chunked, identity", b" \x0bchunked")
    },
    "two codings": (POST + HOST + CHUNKED + CHUNKED + b"\r\n" + CHUNK + END, "400"),
    "a blank before the colon": (POST + HOST + CHUNKED.replace(b":", b" :") + b"\r\n" + CHUNK + END, "400"),
    "chunks": (PIECES + CHUNK + END, "200"),
    "chunks with extensions": (PIECES + CHUNK.replace(b"\r\n", b";a=b\r\n", 1) + END, "200 400"),
    "a chunk extension of 100 kB": (
        PIECES + CHUNK.replace(b"\r\n", b";" + b"a" * 100_000 + b"\r\n", 1) + END,
        "200 400",
    ),
    **{
        f"a chunk of {size.decode()}": (PIECES + size + b"\r\n" + BODY, "400")
        for size in (b"-1", b"+10", b"0x10", b"", b"f" * 21)
    },
    "a chunk that does not end": (PIECES + CHUNK[:-2] + b"XX" + END, "400"),
    "endless trailers": (PIECES + CHUNK + b"0\r\n" + b"X: y\r\n" * 30_000, "400"),
    "a folded header": (GET + HOST + b"X: a\r\n b\r\n\r\n", "200 400"),
    "a folded coding": (POST + HOST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNK + END, "200 400"),
    "a folded host": (GET + b"Host: local\r\n host\r\n\r\n", "400 421"),
    "line feeds alone": ((GET + HOST + b"\r\n").replace(b"\r", b""), "200 400"),
    "a carriage return in a header": (GET + HOST + b"X: a\rY: b\r\n\r\n", "400"),
    "a NUL in a header": (GET + HOST + b"X: a\0b\r\n\r\n", "400"),
    "200 kB of a header": (GET + HOST + b"X: " + b"y" * 200_000 + b"\r\n\r\n", "400 431"),
    "no host": (GET + b"\r\n", "400"),
    "two hosts": (GET + HOST + b"Host: evil.example\r\n\r\n", "400"),
    **{f"host {host!r}": (GET + f"Host: {host}\r\n\r\n".encode(), "421") for host in ADDRESSES},
    "a target with another host": (GET.replace(b"/", b"http://evil.example/", 1) + HOST + b"\r\n", "421"),
    "a target with our host": (GET.replace(b"/", b"http://localhost/", 1) + HOST + b"\r\n", "200"),
    **{
        f"{method} {path}": (f"{method} {path} HTTP/1.1\r\n".encode() + HOST + b"\r\n", statuses)
        for method, path, statuses in (
            *(("HEAD", path, "200") for path in ("/", "/info", "/health", "/metrics", "/openapi.json", "/photos/0")),
            *((method, "/predict", "405") for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE")),
            *(
                ("CONNECT", "localhost:443", "404 405 501"),
                ("OPTIONS", "*", "200 404 405"),
                ("BREW", "/info", "405 501"),
            ),
            *(("GET", f"/photos/{number}", "404") for number in ("-1", "9" * 5000, "%D9%A1", "..%2f..%2fetc%2fpasswd")),
            *(("GET", path, "404") for path in ("/%00", "/%ff", "//evil.example/", "/./info", "/info/")),
        )
    },
    **{
        f"HTTP/{number}": (f"GET /info HTTP/{number}\r\n".encode() + HOST + b"\r\n", statuses)
        for number, statuses in (("0.9", "400 505"), ("1.0", "200"), ("2.0", "505"), ("3", "400"))
    },
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400 505"),
    "an upgrade": (GET + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "200"),
    **{
        f"{field}": (b"GET /page.js HTTP/1.1\r\n" + HOST + field.encode() + b"\r\n\r\n", "200 206 416")
        for field in ("Range: bytes=0-9", "Range: bytes=9-0", "Range: bytes=" + "0-," * 1000 + "0-")
    },
    **{
        f"{field}": (POST + PHOTO + field.encode() + b"\r\n\r\n" + BODY, "403")
        for field in (
            "Origin: http://evil.example",
            "Origin: null",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Site: same-site",
        )
    },
    "our own page": (POST + PHOTO + b"Origin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n\r\n" + BODY, "200"),
    "a form": (POST + PHOTO + b"Content-Type: multipart/form-data\r\n\r\n" + BODY, "415"),
}


def sent(server: Running, data: bytes) -> bytes:
    """What comes back within a second."""
    with socket.create_connection(server.place, timeout=1) as client:
        found = b""
        try:
            client.sendall(data)
            client.settimeout(1)
            while piece := client.recv(65536):
                found += piece
        except (TimeoutError, ConnectionError):
            pass
        return found


def odd_requests(server: Running) -> list[str]:
    """A sentence for each of REQUESTS with another status."""
    faults = []
    for name, (data, allowed) in REQUESTS.items():
        found = sent(server, data)
        for _ in range(20):  # a busy machine needs more than a second
            found = found or sent(server, data)
        statuses = re.findall(rb"HTTP/1\.1 (\d{3}) ", found)
        if not statuses or statuses[0].decode() not in allowed.split():
            faults.append(f"{name}: {[status.decode() for status in statuses]}, not {allowed}")
    return faults


def schemathesis_run(server: Running) -> tuple[int, list[str]]:
    """The number of cases, and a sentence for each failure."""
    words = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.address}openapi.json"]
    more = ["--max-examples", str(EXAMPLES), "--generation-database", "none", "--seed", "1", "--no-color"]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "http_bodies", "PYTHONPATH": str(Path(__file__).parent)}
    run = subprocess.run(
        [*words, *more], capture_output=True, text=True, env=environment, cwd=server.words.parent, check=False
    )
    cases = re.search(r"(\d+) generated", run.stdout)
    assert cases, run.stdout + run.stderr
    faults = re.findall(r"^- (.*)$", run.stdout, re.MULTILINE)
    return int(cases[1]), faults if run.returncode == 0 else faults or [run.stdout[-300:]]


def linted(server: Running) -> tuple[int, list[str]]:
    """The number of responses that httplint read, and its warnings."""
    requests = {path: f"GET {path} HTTP/1.1\r\n" for path in ("/", "/page.js", "/info", "/health", "/metrics")}
    requests |= {path: f"GET {path} HTTP/1.1\r\n" for path in ("/openapi.json", "/photos/0", "/none", "/predict")}
    heads = {name: request.encode() + HOST + b"\r\n" for name, request in requests.items()}
    heads |= {
        "a photo": POST + PHOTO + b"\r\n" + BODY,
        "no HTTP": b"no HTTP\r\n\r\n",
        "no photo": POST + HOST + b"\r\n",
    }
    faults = []
    for name, data in heads.items():
        tool = Path(sys.executable).with_name("httplint")
        run = subprocess.run(tool, input=sent(server, data), capture_output=True, check=False)
        notes = re.findall(r"\[(?:WARN|BAD)\] (.*)", run.stdout.decode())
        faults += [f"httplint, {name}: {note}" for note in notes if "didn't understand" not in note]  # of status 400
    return len(heads), faults


def open_files(server: Running) -> int:
    """The number of the server's open files."""
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def crowd(server: Running, count: int, data: bytes) -> tuple[Counter[str], float]:
    """Connections that send some bytes and stay: their statuses, and another client's seconds meanwhile."""
    clients = []
    for number in range(count):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(server.place)
        clients.append(client)
        if number % 500 == 499:
            time.sleep(0.3)
    for client in clients if data else []:
        try:
            client.send(data)
        except OSError:  # refused already
            continue
    time.sleep(12)  # those that send nothing are refused within 10 seconds
    began = time.monotonic()
    assert server.post("/predict", BODY).status == 200
    seconds = time.monotonic() - began
    statuses: Counter[str] = Counter()
    for client in clients:
        try:
            found = client.recv(4096)
        except OSError:
            found = b""
        statuses[found[9:12].decode() + (" at once" if b"503 " in found and b"retry-after" not in found else "")] += 1
        client.close()
    return statuses, seconds


def crowds(server: Running) -> tuple[dict[str, float], list[str]]:
    """Figures and faults of many silent clients, and of many that stop within a photo."""
    slow = POST + HOST + b"Content-Length: 50000\r\n\r\nabc"
    crowd(server, SLOW, slow)  # the allocator keeps some memory from the first time on
    server.becomes_idle()
    files, memory = open_files(server), server.resident()
    silent, of_silent = crowd(server, CONNECTIONS, b"")
    stopped, of_stopped = crowd(server, SLOW, slow)
    until = time.monotonic() + 60
    while open_files(server) > files and time.monotonic() < until:
        time.sleep(0.5)
    grown = (server.resident() - memory) / 1e6
    faults = [f"{name}: {status}" for name in (silent, stopped) for status in name if status not in ("", "408", "503")]
    faults += [f"{open_files(server) - files} more open files"] if open_files(server) > files else []
    faults += [f"{grown:.0f} MB more"] if grown > MEGABYTES else []
    return {"a photo beside them, s": max(of_silent, of_stopped), "MB more in the end": grown}, faults


def main() -> int:
    """Runs all against one server; 1 where something failed."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with tempfile.TemporaryDirectory() as folder:
        place = make_served(Path(folder))
        more = ("--boxes", place / "net", "--features", place / "f.safetensors")
        with running(place / "run", place / "err.txt", *more) as server:
            faults = odd_requests(server)
            for count, found in (schemathesis := schemathesis_run(server), lint := linted(server)):
                faults += found if count else ["nothing was tried"]
            figures, found = crowds(server)
            faults += found
            log = server.words.read_text()
            faults += ["an exception: " + log[-200:]] if "failed" in log else []
    cases = len(REQUESTS) + schemathesis[0] + lint[0] + CONNECTIONS + SLOW
    counts = {"schemathesis": schemathesis[0], "httplint": lint[0], "odd requests": len(REQUESTS)}
    versions = versions_of("schemathesis", "httplint", "uvicorn", "h11")
    store("http_server", SuiteResult("the HTTP server", versions, cases, faults, {**counts, **figures}))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
