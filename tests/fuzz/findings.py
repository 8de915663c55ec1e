"""What the fuzzing of a parser found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Tried:
    """How many files a parser was given, how many it read, in how many ways it refused others, and what went wrong."""

    seconds: float = 0.0
    tried: int = 0
    read: int = 0
    ways: int = 0
    sentences: set[str] = field(default_factory=set)
    slowest: float = 0.0
    megabytes: float = 0.0
    faults: dict[str, str] = field(default_factory=dict)

    def add(self, other: Tried) -> None:
        """What another process tried."""
        for name in ("seconds", "tried", "read"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("ways", "slowest", "megabytes"):
            setattr(self, name, max(getattr(self, name), getattr(other, name)))
        self.sentences |= other.sentences
        self.faults = {**other.faults, **self.faults}

    def to_json(self) -> dict[str, Any]:
        """Numbers, and the faults."""
        return {**asdict(self), "sentences": sorted(self.sentences)}

    @staticmethod
    def of(told: dict[str, Any]) -> Tried:
        """The way back."""
        return Tried(**{**told, "sentences": set(told["sentences"])})
