"""What a server is asked for: where it listens, and what a client may cost."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.config import MOST_PIXELS, setting
from ...core.errors import VerydeepError

MOST_BATCH, MOST_QUEUE, MOST_PORT = 64, 10_000, 65_535
LEAST_BYTES, MOST_BYTES = 1_000, 1_000_000_000


@dataclass(frozen=True)
class ServeSettings:
    """Where a server listens, how it batches, and its limits."""

    host: str = setting("127.0.0.1", "the address it listens at; 0.0.0.0 lets other machines ask, without a password")
    port: int = setting(8000, "its port; 0 takes a free one")
    batch: int = setting(8, "photos that go through the net together, at most")
    queue: int = setting(128, "requests at work or waiting, at most; others are told to come back")
    max_bytes: int = setting(25_000_000, "of a photo's file")
    max_pixels: int = setting(50_000_000, "of a photo")
    patience: int = setting(30, "seconds a client may take to send a photo")
    heic: bool = setting(False, "also read HEIC, where pillow-heif is installed")

    def __post_init__(self) -> None:
        limits = {
            "port": (0, MOST_PORT),
            "batch": (1, MOST_BATCH),
            "queue": (1, MOST_QUEUE),
            "max_bytes": (LEAST_BYTES, MOST_BYTES),
            "max_pixels": (1, MOST_PIXELS),
            "patience": (1, 3600),
        }
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                shown = name.replace("_", "-")
                raise VerydeepError(f"{shown} is {least:,} to {most:,}, not {getattr(self, name):,}.")
