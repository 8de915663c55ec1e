"""A photo's way in: its bytes read up to a limit, then decoded, with bounds on memory and on patience.

All that a client can do wrong ends in `Refused`: a status of HTTP and one sentence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from starlette.requests import Request

from ...core.errors import FormatError, ImageError, SizeError
from ...core.settings import ServeSettings
from ...data.image_io import Pixels, check_ratio, declared_pixels, decode
from .batching import Full, MemoryBudget

THE_PHOTO = "the photo"
DECODERS = 2
UPLOADS, DECODED = 10, 2  # photos of the largest allowed size that memory is held for at once: encoded, decoded
LEAST_UPLOADS, LEAST_DECODED = 250_000_000, 100_000_000  # bytes, pixels
Value = TypeVar("Value")
Given = TypeVar("Given")
FORMS = ("multipart/form-data", "application/json")


class Refused(Exception):
    """A request that is not answered: the status, and a sentence that says why and what to do.

    ``wait`` is after how many seconds it is worth another try.
    """

    def __init__(self, status: int, sentence: str, wait: float | None = None) -> None:
        super().__init__(sentence)
        self.status, self.message, self.wait = status, sentence, wait


class Reserved(Generic[Value]):
    """Something whose memory is counted in a room, until it is left as a context or `free` is called."""

    def __init__(self, value: Value, units: int, room: MemoryBudget) -> None:
        self._value: Value | None = value
        self._units, self._room = units, room

    @property
    def value(self) -> Value:
        """What it is, before it is freed."""
        assert self._value is not None
        return self._value

    def free(self) -> None:
        """Lets go of it; once more changes nothing."""
        self._room.give(self._units)
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
            Refused: empty, too long, too slow, or of a form that is none of a photo; or memory is short.
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
                raise Refused(503, "too many photos are on their way: come back later.", 1) from None
            raise
        if not data:
            raise Refused(400, "the body is empty: send a photo's bytes, as `curl --data-binary @photo.jpg` does.")
        return Reserved(bytes(data), len(data), self._bytes)

    def _check_head(self, request: Request) -> None:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in FORMS:
            raise Refused(415, f"the body is {kind}: send a photo's bytes as they are, in no form.")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(415, "the body is compressed: send a photo's bytes as they are.")
        told = request.headers.get("content-length", "0")
        if told.isdecimal() and int(told[:12]) > self._settings.max_bytes:
            raise self._too_long()

    def _too_long(self) -> Refused:
        most = self._settings.max_bytes
        return Refused(413, f"{THE_PHOTO} is of more than {most:,} bytes: make it smaller, or serve with --max-bytes.")

    async def decode(self, body: Reserved[bytes]) -> Reserved[Pixels]:
        """The photo in a body, uint8 RGB (H,W,3); the body is freed.

        Raises:
            Refused: no photo, a broken one, or one of too many pixels.
        """
        return await self.in_thread(self._decode, body)

    async def in_thread(self, work: Callable[[Given], Value], given: Given) -> Value:
        """What a function gives, on a thread that decodes."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, work, given)

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
        """Ends the threads that decode."""
        self._decoders.shutdown(cancel_futures=True)
