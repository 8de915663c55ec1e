"""`verydeep serve` as a real process over loopback: responses, bad input, load, shutdown."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from servers import CLASSES, Running, encoded, photo, running

import verydeep
from conftest import Command
from verydeep import Classifier
from verydeep.evaluation.saliency import grad_cam, overlay, score_map
from verydeep.transfer.retrieval import NearestNeighbours

HERE = verydeep.MachineSettings(workers=0, threads=1)


@pytest.fixture(scope="module")
def server(served: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One that serves everything; not to be ended."""
    words = tmp_path_factory.mktemp("words") / "err.txt"
    more = ("--boxes", served / "net", "--features", served / "f.safetensors", "--queue", 40, "--max-bytes", 200_000)
    with running(served / "run", words, *more, "--max-pixels", 1_000_000) as found:
        yield found
        assert found.process.poll() is None, words.read_text()
        assert "failed" not in words.read_text()  # no error of ours in all these tests


def asked(served: Path) -> Classifier:
    found = verydeep.load(served / "run", machine=HERE)
    assert isinstance(found, Classifier)
    return found


# Responses.


def test_predictions_are_those_of_predict(server: Running, served: Path) -> None:
    body = photo(3)
    result = server.post("/predict?top=4", body).json
    (expected,) = asked(served).predict([body], 4)
    assert (result["width"], result["height"]) == (64, 48)
    assert [row["class"] for row in result["predictions"]] == [name for name, _ in expected.classes]
    values = [row["probability"] for row in result["predictions"]]
    assert values == pytest.approx([value for _, value in expected.classes], abs=2e-6)
    assert len(server.post("/predict", body).json["predictions"]) == 5
    assert len(server.post("/predict?top=1000", body).json["predictions"]) == 6


def test_maps_are_those_of_explain(server: Running, served: Path) -> None:
    body, net = photo(4), asked(served)
    pixels = np.array(Image.open(io.BytesIO(body)))
    for kind, way in (("map", score_map), ("gradcam", grad_cam)):
        expected = way(net, pixels, CLASSES.index("dog"))
        result = server.post(f"/explain?class=dog&kind={kind}", body).json
        assert (result["class"], result["kind"]) == ("dog", kind)
        np.testing.assert_allclose(result["values"], expected.values, atol=2e-5)
        assert result["rows"] == pytest.approx(expected.rows, abs=0.01)
        picture = server.post(f"/explain?class=dog&kind={kind}&form=png", body)
        assert picture.headers["content-type"] == "image/png"
        shown = np.array(Image.open(io.BytesIO(picture.body))).astype(int)
        assert np.abs(shown - overlay(pixels, expected)).max() <= 1
    best = server.post("/predict?top=1", body).json["predictions"][0]["class"]
    assert server.post("/explain", body).json["class"] == best


def test_boxes_are_those_of_localise_predict(server: Running, served: Path) -> None:
    body = photo(5)
    (expected,) = verydeep.load_localiser(served / "net", machine=HERE).predict([body], 2)
    result = server.post("/localise?top=2", body).json["boxes"]
    assert [row["class"] for row in result] == [box.name for box in expected.boxes]
    for row, box in zip(result, expected.boxes, strict=True):
        assert row["box"] == pytest.approx(box.xyxy, abs=0.02)
    (one,) = server.post("/localise?class=bee", body).json["boxes"]
    assert one["class"] == "bee"


def test_descriptors_and_neighbours_are_those_of_the_features_file(server: Running, served: Path) -> None:
    body = (served / "photos" / "cat" / "cat3.png").read_bytes()
    result = server.post("/describe", body).json["descriptor"]
    finder = NearestNeighbours(served / "f.safetensors", machine=HERE)
    np.testing.assert_allclose(result, finder.descriptors([body])[0], atol=1e-5)
    first, *others = server.post("/similar?top=3", body).json["neighbours"]
    assert (first["image"], first["class"]) == ("cat/cat3.png", "cat")
    assert first["cosine"] == pytest.approx(1, abs=1e-4)
    assert len(others) == 2
    picture = server.ask("GET", f"/photos/{first['photo']}")
    assert picture.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(picture.body)).size == (64, 48)
    assert "there is no image with this number" in server.ask("GET", "/photos/36").mistake()


def test_photos_of_many_kinds(server: Running) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    for form in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"):
        result = server.post("/predict", encoded(pixels, form))
        assert result.status == 200, (form, result.body)
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(turned, "JPEG", exif=exif)
    result = server.post("/predict", turned.getvalue()).json
    assert (result["width"], result["height"]) == (40, 50)


# The document, the page, the metrics.


def fits(value: Any, schema: dict[str, Any], schemas: dict[str, Any]) -> bool:
    """Whether a JSON value matches a schema; of JSON Schema's keywords, those that the document uses."""
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "number": (int, float),
        "integer": int,
        "null": type(None),
    }
    if "$ref" in schema:
        return fits(value, schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "anyOf" in schema:
        return any(fits(value, one, schemas) for one in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    if not isinstance(value, kinds[schema["type"]]):
        return False
    if isinstance(value, list):
        return all(fits(one, schema["items"], schemas) for one in value)
    if isinstance(value, dict):
        known = schema.get("properties", {})
        return set(schema.get("required", [])) <= set(value) and all(
            fits(one, known[name], schemas) for name, one in value.items() if known
        )
    return True


def test_responses_match_the_openapi_document(server: Running) -> None:
    document = server.ask("GET", "/openapi.json").json
    schemas = document["components"]["schemas"]
    assert document["openapi"] == "3.1.0"
    assert set(document["info"]) >= {"title", "version"}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert {"400", "408", "421", "503", "505"} <= operation["responses"].keys()  # before it reaches a route
            answer = server.ask(method.upper(), path.replace("{place}", "0"), photo() if method == "post" else None)
            assert answer.status == 200, path
            content = operation["responses"]["200"]["content"]
            kind = answer.headers["content-type"].partition(";")[0]
            assert kind in content, path
            if kind == "application/json":
                assert fits(answer.json, content[kind]["schema"], schemas), (path, answer.json)
            for status, response in operation["responses"].items():
                assert status.isdigit()
                assert response["description"]
    assert fits(server.post("/predict", b"").json, schemas["Error"], schemas)
    assert not fits({"error": {"status": "400"}}, schemas["Error"], schemas)
    assert "200,000 bytes" in document["paths"]["/predict"]["post"]["requestBody"]["description"]
    for route in ("/explain", "/localise"):
        (schema,) = [one["schema"] for one in document["paths"][route]["post"]["parameters"] if one["name"] == "class"]
        assert schema == {"type": "string", "enum": list(CLASSES)}  # other names get 422


def test_no_page_loads_scripts_from_a_cdn_and_get_routes_take_head(server: Running) -> None:
    for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
        assert server.ask("GET", path).status == 404
    for path in ("/", "/info", "/health", "/metrics", "/openapi.json", "/photos/0"):
        reply = server.ask("HEAD", path)
        assert (reply.status, reply.body) == (200, b"")


def test_the_page_loads_nothing_from_outside(server: Running) -> None:
    page = server.ask("GET", "/")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    texts = [page.body, *(server.ask("GET", path).body for path in ("/page.js", "/page.css"))]
    assert not any(b"http:" in text or b"https:" in text or b"innerHTML" in text for text in texts)
    for path in ("/", "/info", "/nothing", "/page.js"):
        headers = server.ask("GET", path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] in ("no-store", "no-cache")
        assert (headers["cache-control"] == "no-cache") == ("etag" in headers)  # a copy is checked, not loaded again
        assert not any(name.startswith("access-control") for name in headers)


def test_copies_are_kept_by_browsers_alone_and_checked(server: Running) -> None:
    for path in ("/", "/page.js", "/page.css", "/icon.svg"):
        tag = server.ask("GET", path).headers["etag"]
        known = server.ask("GET", path, headers={"If-None-Match": f'"older", W/{tag}'})
        assert (known.status, known.body, known.headers["etag"]) == (304, b"", tag)
        assert server.ask("GET", path, headers={"If-None-Match": '"older"'}).status == 200
    assert server.ask("GET", "/photos/0").headers["cache-control"].startswith("private, ")


def test_metrics(server: Running) -> None:
    before = server.figures()
    server.post("/predict", photo())
    server.post("/predict", b"no photo")
    server.ask("GET", "/some/strange/path")
    after = server.figures()

    def more(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert more('verydeep_requests_total{route="/predict",status="200"}') == 1
    assert more('verydeep_requests_total{route="/predict",status="415"}') == 1
    assert more('verydeep_requests_total{route="other",status="404"}') == 1
    assert more("verydeep_batch_photos_sum") == 1
    assert more('verydeep_request_seconds_count{route="/predict"}') == 2
    assert after["verydeep_queue_places"] == 40
    assert "strange" not in " ".join(after)
    assert server.ask("GET", "/health").json["status"] == "ok"


# Bad input.


def bomb() -> bytes:
    """A PNG of a few bytes that declares a billion pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 40_000, 30_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


def jpeg() -> bytes:
    return encoded(np.random.default_rng(2).integers(0, 256, (64, 64, 3)).astype(np.uint8), "JPEG")


BAD: list[tuple[str, str, Any, dict[str, str], int, str]] = [
    ("POST", "/predict", b"", {}, 400, "the body is empty"),
    ("POST", "/predict", b"hello", {}, 415, "not an image in a known format"),
    ("POST", "/predict", b"<svg xmlns='x'><script>alert(1)</script></svg>", {}, 415, "unsupported format (SVG)"),
    ("POST", "/predict", b"%PDF-1.7", {}, 415, "not an image in a known format"),
    ("POST", "/predict", jpeg()[:-900], {}, 400, "the photo is corrupted and cannot be decoded"),
    ("POST", "/explain", jpeg()[:300], {}, 400, "the photo is corrupted and cannot be decoded"),
    ("POST", "/localise", photo()[:8], {}, 415, "corrupted at its start"),
    ("POST", "/predict", bomb(), {}, 413, "has more than 1,000,000 pixels"),
    ("POST", "/similar", encoded(np.zeros((1001, 1000, 3), np.uint8)), {}, 413, "more than 1,000,000 pixels"),
    ("POST", "/predict", encoded(np.zeros((10, 1000, 3), np.uint8)), {}, 400, "aspect ratio above 50"),
    ("POST", "/predict", b"x" * 200_001, {}, 413, "the photo has more than 200,000 bytes"),
    ("POST", "/predict", photo(), {"Content-Type": "multipart/form-data; boundary=x"}, 415, "not a form"),
    ("POST", "/predict", photo(), {"Content-Encoding": "gzip"}, 415, "the body is compressed"),
    ("POST", "/predict?top=0", photo(), {}, 422, "top must be a number from 1 to 1,000, not '0'"),
    ("POST", "/predict?top=five", photo(), {}, 422, "top must be a number"),
    ("POST", "/predict?top=" + "9" * 5000, photo(), {}, 422, "top must be a number"),
    ("POST", "/predict?tpo=1", photo(), {}, 422, "there is no parameter 'tpo' of /predict: did you mean 'top'"),
    ("POST", "/describe?top=1", photo(), {}, 422, "it takes none"),
    ("POST", "/explain?kind=heat", photo(), {}, 422, "kind is map or gradcam, not 'heat'"),
    ("POST", "/explain?class=zebra", photo(), {}, 422, "unknown class 'zebra'"),
    ("POST", "/localise?class=zebra", photo(), {}, 422, "unknown class 'zebra'"),
    ("GET", "/predict", None, {}, 405, "/predict takes POST, not GET"),
    ("POST", "/", photo(), {}, 405, "not POST"),
    ("BREW", "/health", None, {}, 405, "not BREW"),
    ("OPTIONS", "/predict", None, {"Origin": "http://evil.example"}, 405, "not OPTIONS"),
    ("GET", "/predict/", None, {}, 404, "there is no /predict/ here"),
    ("GET", "/../../etc/passwd", None, {}, 404, "GET /openapi.json describes what there is"),
    ("GET", "/photos/..%2f..%2fetc%2fpasswd", None, {}, 404, "there is no"),
    ("GET", "/photos/99999999999999999999", None, {}, 404, "there is no image with this number"),
    ("GET", "/photos/" + "9" * 5000, None, {}, 404, "there is no image with this number"),
    ("GET", "/photos/%D9%A1", None, {}, 404, "there is no image with this number"),
    ("POST", "/explain?class=", photo(), {}, 422, "unknown class ''"),
    ("GET", "/health", None, {"Host": "evil.example"}, 421, "not for the host 'evil.example'"),
    ("GET", "/health", None, {"Host": "[::1].evil.example"}, 421, "for this machine only"),
    ("GET", "/health", None, {"Host": "localhost:evil.example"}, 421, "for this machine only"),
    ("GET", "/health", None, {"Host": "[localhost]"}, 421, "for this machine only"),
    ("GET", "/health", None, {"Host": "evil.example@localhost"}, 421, "for this machine only"),
    ("POST", "/predict", photo(), {"Origin": "http://evil.example"}, 403, "pages of other sites"),
    ("POST", "/predict", photo(), {"Origin": "null"}, 403, "pages of other sites"),
    ("GET", "/health", None, {"Host": "127.0.0.1.evil.example:80"}, 421, "for this machine only"),
    (
        "POST",
        "/predict",
        photo(),
        {"Sec-Fetch-Site": "cross-site"},
        403,
        "pages of other sites may not use this server",
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "sentence"), BAD)
def test_bad_input(
    server: Running, method: str, path: str, body: Any, headers: dict[str, str], status: int, sentence: str
) -> None:
    answer = server.ask(method, path, body, headers)
    assert answer.status == status, answer.body
    assert sentence in answer.mistake()
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1234", "[::1]:8000", "LOCALHOST:8000"])
def test_names_of_this_machine(server: Running, host: str) -> None:
    assert server.ask("GET", "/health", headers={"Host": host}).status == 200


def test_odd_images_get_a_response_or_an_error(server: Running) -> None:
    odd = Path(__file__).resolve().parents[3] / "shared" / "external" / "odd_images"
    if not odd.is_dir():
        pytest.skip("the odd images are not here")
    for path in sorted(odd.iterdir()):
        answer = server.post("/predict", path.read_bytes())
        assert answer.status in (200, 400, 413, 415), path
        if answer.status != 200:
            assert answer.mistake().startswith("the photo"), path


def raw(server: Running, *parts: bytes, end: bool = True) -> bytes:
    """All that comes back for some bytes."""
    with socket.create_connection(server.place, timeout=30) as client:
        for part in parts:
            client.sendall(part)
        if not end:
            return b""
        found = b""
        while piece := client.recv(65536):
            found += piece
        return found


HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"


def test_bodies_of_unknown_or_wrong_length(server: Running) -> None:
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    endless = raw(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 13)
    assert endless.startswith(b"HTTP/1.1 413 ")
    fewer = raw(server, HEAD + b"Content-Length: 4\r\n\r\n", photo())  # the rest is no request
    assert fewer.startswith(b"HTTP/1.1 415 ")
    good = photo()
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(good[i : i + 700]), good[i : i + 700]) for i in range(0, len(good), 700))
    assert raw(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n").startswith(
        b"HTTP/1.1 200 "
    )
    assert b" 400 " in raw(server, HEAD + b"Content-Length: nine\r\n\r\n")
    assert json.loads(raw(server, b"\x16\x03\x01 no http\r\n\r\n").split(b"\r\n\r\n")[1])["error"]["status"] == 400
    assert raw(server, b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 4")


HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


def test_requests_that_proxies_read_in_other_ways_are_refused_and_close_the_connection(server: Running) -> None:
    """RFC 9112: section 6.3 has a body of two lengths, 2.5 another version, 3.2.2 a target with a host of its own."""
    pieces = b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    for smuggled in (HEAD + b"Content-Length: 4\r\n" + pieces, HEALTH + b"Content-Length: 4\r\n" + pieces):
        kept = smuggled.replace(b"Connection: close\r\n", b"")
        answer = raw(server, kept + HEALTH + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1 ") == 1  # the second request is not handled
        assert b"both Content-Length and Transfer-Encoding" in answer
    assert raw(server, HEALTH.replace(b"1.1", b"2.0") + b"\r\n").startswith(b"HTTP/1.1 505 ")
    for host, status in ((b"localhost", b"200"), (b"127.0.0.1:80", b"200"), (b"evil.example", b"421")):
        answer = raw(server, HEALTH.replace(b"/health", b"http://" + host + b"/health") + b"Connection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 " + status)


def test_the_servers_own_page_is_no_other_site(server: Running) -> None:
    host = "{}:{}".format(*server.place)
    for headers in (
        {"Origin": f"http://{host}", "Host": host},
        {"Origin": "http://a", "Sec-Fetch-Site": "same-origin"},
    ):
        assert server.post("/predict", photo(), headers).status == 200


def test_requests_of_disconnected_clients_are_skipped(server: Running) -> None:
    before = server.figures()
    body = photo(9, (300, 200))
    result = HEAD + b"Content-Length: %d\r\n\r\n" % len(body)
    for _ in range(20):
        raw(server, result, body[:100], end=False)  # in the midst of the photo
        raw(server, result, body, end=False)  # before the response
        raw(server, b"POST /pre", end=False)
    server.becomes_idle()
    after = server.figures()
    name = 'verydeep_requests_total{route="/predict",status="499"}'
    assert 20 <= after[name] - before.get(name, 0) <= 40
    assert server.post("/predict", body).status == 200


async def _one(place: tuple[str, int], body: bytes) -> tuple[int, bool]:
    """The status of a request, and whether it says when to come back."""
    reader, writer = await asyncio.open_connection(*place)
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    answer = await asyncio.wait_for(reader.read(), 120)
    writer.close()
    return int(answer[9:12]), b"retry-after: " in answer


def test_a_thousand_requests_at_once(server: Running) -> None:
    """The queue has 40 places: a client that gets none is refused at once, and every client gets a response."""
    bodies = [photo(number, (64, 48)) for number in range(7)] + [b"broken", jpeg()[:-500]]
    server.post("/predict", bodies[0])
    before, figures = server.resident(), server.figures()

    async def all_at_once() -> list[tuple[int, bool]]:
        return await asyncio.gather(*(_one(server.place, bodies[n % len(bodies)]) for n in range(1000)))

    found = asyncio.run(all_at_once())
    statuses = Counter(status for status, _ in found)
    assert set(statuses) <= {200, 400, 415, 503}, statuses
    assert 1000 - statuses[503] >= 40
    assert statuses[200] >= 10
    assert statuses[503] >= 1
    assert all(again for status, again in found if status == 503)
    server.becomes_idle()
    after = server.figures()
    asked = after["verydeep_batch_photos_sum"] - figures["verydeep_batch_photos_sum"]
    batches = after["verydeep_batch_photos_count"] - figures["verydeep_batch_photos_count"]
    # A batch of clients that left in the previous test may be counted only now.
    assert statuses[200] <= asked <= statuses[200] + 8
    assert asked / batches > 2  # they were batched
    assert server.resident() - before < 100e6
    assert server.post("/predict", bodies[0]).status == 200


def test_each_client_gets_the_response_for_its_own_image(server: Running, served: Path) -> None:
    bodies = [photo(number, ((64, 48), (48, 64), (50, 50))[number % 3]) for number in range(24)]
    expected = asked(served).predict(bodies, 1)
    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(lambda body: server.post("/predict?top=1", body).json, bodies))
    for one, result in zip(expected, found, strict=True):
        (row,) = result["predictions"]
        assert (row["class"], row["probability"]) == (one.classes[0][0], pytest.approx(one.classes[0][1], abs=1e-5))


# Slow clients and shutdown.


@pytest.mark.slow
def test_slow_clients_are_disconnected_and_hold_no_place(served: Path, tmp_path: Path) -> None:
    quick = "import verydeep.deploy.server.uvicorn_server as l; l.HEAD_SECONDS, l.LINGER_SECONDS = 0.5, 0.3"
    more = ("--patience", 1, "--queue", 1, "--max-bytes", 100_000)
    with running(served / "run", tmp_path / "err.txt", *more, setting=quick) as server:
        stalled = [socket.create_connection(server.place, timeout=20) for _ in range(3)]
        answers: list[bytes] = []
        stalled[0].sendall(b"POST /predict HTTP/1.1\r\nHost: local")  # no end of its head
        stalled[1].sendall(HEAD.replace(b"Connection: close\r\n", b"") + b"Content-Length: 5000\r\n\r\nabc")
        assert server.post("/predict", photo()).status == 200  # the only place is free
        for client in stalled:
            answers.append(b"")
            while piece := client.recv(4096):  # until the connection is closed
                answers[-1] += piece
            client.close()
        assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
        assert b"the request's head did not arrive within 0.5 seconds" in answers[0]
        assert b"the photo did not arrive within 1 seconds" in answers[1]
        assert b"the request's head did not arrive" in answers[2]  # it sends nothing
        # One that goes on sending after it was refused is dropped too.
        with socket.create_connection(server.place, timeout=20) as flood:
            flood.sendall(HEAD.replace(b"Connection: close\r\n", b"") + b"Content-Length: 900000000\r\n\r\n")
            with pytest.raises((ConnectionError, BrokenPipeError), match=r"."):
                trickle(flood, b"x" * 10_000)
        assert server.ask("GET", "/health").json == {"status": "ok", "queue": 0}
        assert server.stop() == 0


def trickle(client: socket.socket, data: bytes) -> None:
    """Sends for ten seconds."""
    for _ in range(2000):
        client.sendall(data)
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_shutdown_finishes_pending_requests(served: Path, tmp_path: Path, number: int) -> None:
    slow = (
        "import time, verydeep.deploy.server.models as q\n"
        "before = q.ServedModels.run\n"
        "q.ServedModels.run = lambda *words: (time.sleep(0.4), before(*words))[1]"
    )
    with running(served / "run", tmp_path / "err.txt", "--batch", 1, setting=slow) as server:
        with ThreadPoolExecutor(5) as threads:
            answers = [threads.submit(server.post, "/predict", photo(n)) for n in range(5)]
            while server.ask("GET", "/health").json["queue"] < 5:
                time.sleep(0.02)
            status = server.stop(number)
            assert [answer.result(10).status for answer in answers] == [200] * 5
        assert status == 0
        words = server.words.read_text()
        assert "pending requests finished; server stopped" in words
        assert "Traceback" not in words
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.place, timeout=1)


@pytest.mark.slow
def test_a_second_signal_stops_it_at_once(served: Path, tmp_path: Path) -> None:
    slow = "import time, verydeep.deploy.server.models as q; q.ServedModels.run = lambda *words: time.sleep(2) or []"
    with running(served / "run", tmp_path / "err.txt", "--batch", 1, setting=slow) as server:
        clients = [socket.create_connection(server.place, timeout=20) for _ in range(9)]
        body = photo()
        for client in clients:
            client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        while server.ask("GET", "/health").json["queue"] < 9:
            time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        begun = time.monotonic()
        assert server.stop() == 128 + signal.SIGTERM
        assert time.monotonic() - begun < 8  # not the 18 seconds of nine batches
        assert "stopped at once; pending requests were dropped" in server.words.read_text()
        for client in clients:
            client.close()


def test_unexpected_exceptions_too_many_connections_and_unread_responses(served: Path, tmp_path: Path) -> None:
    """An exception is logged, not sent to clients; the server and the other items of the batch go on."""
    broken = (
        "import verydeep.deploy.server.uvicorn_server as l, verydeep.deploy.server.models as q\n"
        "before, l.MOST_CONNECTIONS, l.READ_SECONDS = q.ServedModels.run, 8, 0.5\n"
        "def answer(self, question, items):\n"
        "    assert all(item.top != 13 for item in items), 'a secret of ours'\n"
        "    return before(self, question, items)\n"
        "q.ServedModels.run = answer"
    )
    with running(served / "run", tmp_path / "err.txt", setting=broken) as server:
        with ThreadPoolExecutor(6) as threads:
            tops = [5, 13, 5, 5, 13, 5]
            answers = list(threads.map(lambda top: server.post(f"/predict?top={top}", photo()), tops))
        assert [answer.status for answer in answers] == [500 if top == 13 else 200 for top in tops]
        assert answers[1].mistake() == "the server failed; its log has the reason."
        result = server.words.read_text()
        assert result.count("warning: a request to /predict failed: AssertionError: a secret of ours") == 2
        assert "Traceback" not in result
        crowd = [socket.create_connection(server.place, timeout=20) for _ in range(12)]
        for client in crowd[8:]:
            refused = client.recv(4096)
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert all(name in refused for name in (b"retry-after: 1\r\n", b"date: ", b"nosniff", b"connection: close"))
        for client in crowd:
            client.close()
        server.becomes_idle()
        assert server.post("/predict", photo()).status == 200
        unread = HEALTH.replace(b"/health", b"/page.js") + b"\r\n"
        client = socket.create_connection(server.place, timeout=20)  # it asks on and on, and reads nothing
        with client, pytest.raises((ConnectionError, BrokenPipeError), match=r"."):
            trickle(client, unread)
        assert server.post("/predict", photo()).status == 200


# What else can be served, and mistakes.


def test_svms_are_served_with_scores_and_exported_files_without_maps(
    served: Path, tmp_path: Path, command: Command
) -> None:
    words = ("svm", "own", "--features", served / "f.safetensors", "--splits", 1, "--out", tmp_path / "svm")
    learnt = command(*words, "--threads", 1)
    assert learnt.status == 0, learnt.stderr
    with running(tmp_path / "svm", tmp_path / "err.txt") as server:
        rows = server.post("/predict?top=2", photo()).json["predictions"]
        assert rows[0]["score"] >= rows[1]["score"]
        assert server.ask("GET", "/info").json["ways"] == ["predict"]
        for way, sentence in (("explain", "not of an exported file or of SVMs"), ("localise", "--boxes DIR")):
            assert sentence in server.post(f"/{way}", photo()).mistake()
        assert "--features FILE" in server.post("/similar", photo()).mistake()


def test_mistakes(server: Running, served: Path, tmp_path: Path, command: Command) -> None:
    def mistake(*words: object) -> str:
        return command("serve", *words).mistake()

    run, port = served / "run", server.place[1]
    assert f"cannot listen at 127.0.0.1 port {port}: " in mistake(run, "--port", port)
    assert "use another --port" in mistake(run, "--host", "192.0.2.1", "--port", 0)
    assert "unknown host 'a..b': use an address of this machine" in mistake(run, "--host", "a..b")
    assert "port must be 0 to 65,535, not 70,000" in mistake(run, "--port", 70_000)
    assert "batch must be 1 to 64, not 0" in mistake(run, "--batch", 0)
    assert "max-bytes must be an integer" in mistake(run, "--max-bytes", "5MB")
    assert "there is no" in mistake(tmp_path / "nothing", "--port", 0)
    assert "is below the net's crop of 32" in mistake(run, "--port", 0, "--protocol", "dense@20")
    assert "is a classifier, not a localisation model" in mistake(run, "--port", 0, "--boxes", run)
    assert "there is no features file" in mistake(run, "--port", 0, "--features", tmp_path / "f.safetensors")


def test_a_missing_extra_is_named(served: Path) -> None:
    code = "import sys; sys.modules['fastapi'] = None; from verydeep.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "serve", str(served / "run")]
    found = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 2
    assert (
        found.stderr
        == "verydeep: serving needs fastapi, prometheus-client and uvicorn: pip install 'verydeep[serve]'.\n"
    )
