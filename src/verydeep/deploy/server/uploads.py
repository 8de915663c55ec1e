"""Request bodies: read up to a limit, then decoded, within limits on memory and time.

Every client error raises `Refused`: an HTTP status and one sentence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from starlette.requests import Request

from ...core.errors import FormatError, ImageError, SizeError
from ...core.settings import ServeSettings
from ...data.image_io import Pixels, declared_pixels, decode
from ...data.transforms import check_ratio
from .batching import Full, MemoryBudget

THE_PHOTO = "the photo"
DECODERS = 2
UPLOADS, DECODED = 10, 2  # images of the largest allowed size that memory is reserved for: encoded, decoded
LEAST_UPLOADS, LEAST_DECODED = 250_000_000, 100_000_000  # bytes, pixels
Value = TypeVar("Value")
Argument = TypeVar("Argument")
FORMS = ("multipart/form-data", "application/json")


class Refused(Exception):
    """A refused request: the status, and a sentence with the reason and what to do.

    ``wait`` is the seconds after which the client may try again.
    """

    def __init__(self, status: int, sentence: str, wait: float | None = None) -> None:
        super().__init__(sentence)
        self.status, self.message, self.wait = status, sentence, wait


class Reserved(Generic[Value]):
    """A value whose memory is reserved in a budget, until its context ends or `free` is called."""

    def __init__(self, value: Value, units: int, budget: MemoryBudget) -> None:
        self._value: Value | None = value
        self._units, self._budget = units, budget

    @property
    def value(self) -> Value:
        """The value, before it is freed."""
        assert self._value is not None
        return self._value

    def free(self) -> None:
        """Releases the value; a second call does nothing."""
        self._budget.give(self._units)
        self._units, self._value = 0, None

    def __enter__(self) -> Reserved[Value]:
        return self

    def __exit__(self, *_: object) -> None:
        self.free()


class Uploads:
    """Reads and decodes photos within the limits of a server's settings."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._bytes = MemoryBudget(max(LEAST_UPLOADS, UPLOADS * settings.max_bytes))
        self._pixels = MemoryBudget(max(LEAST_DECODED, DECODED * settings.max_pixels))
        self._decoders = ThreadPoolExecutor(DECODERS, "decoder")

    async def read(self, request: Request) -> Reserved[bytes]:
        """The bytes of a request's body.

        Raises:
            Refused: empty, too large, too slow, or a form; or memory is short.
        """
        self._check_head(request)
        data = bytearray()
        try:
            async with asyncio.timeout(self._settings.patience):
                async for chunk in request.stream():
                    if len(data) + len(chunk) > self._settings.max_bytes:
                        raise self._too_long()
                    self._bytes.take(len(chunk))
                    data += chunk
        except BaseException as fault:  # a client that hangs up, too
            self._bytes.give(len(data))
            if isinstance(fault, TimeoutError):
                raise Refused(408, f"{THE_PHOTO} did not arrive within {self._settings.patience} seconds.") from None
            if isinstance(fault, Full):
                raise Refused(503, "too many images are being uploaded: try again later.", 1) from None
            raise
        if not data:
            raise Refused(400, "the body is empty: send an image file, as `curl --data-binary @photo.jpg` does.")
        return Reserved(bytes(data), len(data), self._bytes)

    def _check_head(self, request: Request) -> None:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in FORMS:
            raise Refused(415, f"the body is {kind}: send the image file itself as the body, not a form.")
        if any(coding.lower() != "identity" for coding in request.headers.getlist("content-encoding")):
            raise Refused(415, "the body is compressed: send the image file as it is.")
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length[:12]) > self._settings.max_bytes:
            raise self._too_long()

    def _too_long(self) -> Refused:
        most = self._settings.max_bytes
        return Refused(
            413, f"{THE_PHOTO} has more than {most:,} bytes: send a smaller one, or serve with a larger --max-bytes."
        )

    async def decode(self, body: Reserved[bytes]) -> Reserved[Pixels]:
        """The image in a body, uint8 RGB (H,W,3); the body is freed.

        Raises:
            Refused: not an image, a broken one, or one with too many pixels.
        """
        return await self.in_thread(self._decode, body)

    async def in_thread(self, work: Callable[[Argument], Value], argument: Argument) -> Value:
        """A function's result, computed on a decoding thread."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, work, argument)

    def _decode(self, body: Reserved[bytes]) -> Reserved[Pixels]:
        most = self._settings.max_pixels
        count = declared_pixels(body.value, self._settings.heic)
        if count > most:
            count = 0  # it is refused before anything is decoded
        self._pixels.take(count, None)
        try:
            pixels = decode(body.value, THE_PHOTO, most, self._settings.heic)
            check_ratio(pixels.shape)
            return Reserved(pixels, count, self._pixels)
        except ImageError as fault:
            self._pixels.give(count)
            status = 415 if isinstance(fault, FormatError) else 413 if isinstance(fault, SizeError) else 400
            raise Refused(status, str(fault)) from None
        except BaseException:
            self._pixels.give(count)
            raise
        finally:
            body.free()

    def close(self) -> None:
        """Ends the decoding threads."""
        self._decoders.shutdown(cancel_futures=True)
