"""Sect. 2: Tables 1 and 2 as the paper prints them, to compare with the nets here."""

from __future__ import annotations

# Net, weight layers (Table 1), parameters in millions (Table 2, whose A and A-LRN share a column).
PRINTED: dict[str, tuple[int, int]] = {
    "A": (11, 133),
    "A-LRN": (11, 133),
    "B": (13, 133),
    "C": (16, 134),
    "D": (16, 138),
    "E": (19, 144),
}
