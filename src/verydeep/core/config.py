"""The machinery of settings dataclasses: typed text from flags, JSON both ways, rows for `--help`."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from .errors import VerydeepError
from .nearest import nearest, nearest_setting
from .paths import listed_paths

LARGEST_SIDE = 8192  # of S and Q, in pixels: larger ones are typing mistakes that would take all memory
STRIDE = 32  # five poolings of stride 2

_Settings = TypeVar("_Settings")


@dataclass(frozen=True)
class Scale:
    """The training scale S: the smallest image side in pixels, fixed or drawn from [smallest, largest]."""

    smallest: int
    largest: int

    @staticmethod
    def parse(text: str) -> Scale:
        """``256`` or ``256-512``; raises VerydeepError."""
        match = re.fullmatch(r"(\d{1,99})(?:-(\d{1,99}))?", text.strip())
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise VerydeepError(f"S {text[:60]!r} is not a scale: use one number of pixels (256) or a range (256-512).")
        if int(match[2] or match[1]) > LARGEST_SIDE:
            raise VerydeepError(f"S {text[:60]} is above {LARGEST_SIDE} pixels, the maximum.")
        return Scale(int(match[1]), int(match[2] or match[1]))

    @property
    def test_scale(self) -> int:
        """Q = S for a fixed S, the mean of the range for a jittered one (Sect. 4.1)."""
        return (self.smallest + self.largest) // 2

    def test_scales(self, crop: int) -> tuple[int, ...]:
        """Several Q (Sect. 4.2): S - 32, S, S + 32 at a crop of 224, or the ends and mean of a range; none below it."""
        step = round(32 * crop / 224) if self.smallest == self.largest else 0
        return tuple(sorted({max(crop, self.smallest - step), self.test_scale, self.largest + step}))

    def __str__(self) -> str:
        return str(self.smallest) if self.smallest == self.largest else f"{self.smallest}-{self.largest}"


def setting(default: Any, text: str, group: str, names: bool = False, placeholder: str = "") -> Any:
    """A field of a settings dataclass: its default, its help text, and its group of arguments in `--help`.

    Args:
        names: whether it is a tuple of comma-separated lists of names, not split here, as names may contain commas.
        placeholder: what `--help` shows for the value, where its type does not say enough.
    """
    metadata = {"help": text, "group": group, "names": names, "placeholder": placeholder}
    return field(default=default, metadata=metadata)


class SettingHelp(NamedTuple):
    """A setting as `--help` shows it."""

    name: str
    placeholder: str
    text: str
    group: str
    default: Any


def lists_names(kind: type) -> set[str]:
    """The fields that are lists of names, whose flags can be repeated."""
    return {item.name for item in dataclasses.fields(typing.cast(Any, kind)) if item.metadata.get("names")}


def comma_parts(lists: tuple[str, ...]) -> tuple[str, ...]:
    """The items of several comma-separated lists."""
    return tuple(part.strip() for text in lists for part in text.split(","))


def flag(name: str) -> str:
    """The name of a setting's flag, without the dashes in front."""
    return name.replace("_", "-")


@cache
def type_hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields, cached: evaluating their annotations takes milliseconds."""
    return get_type_hints(kind)


def typed(kind: type, given: dict[str, Any]) -> dict[str, Any]:
    """Settings, given as text or values, converted to the types of the dataclass's fields.

    Raises:
        VerydeepError: an unknown setting (the nearest is suggested) or an invalid value.
    """
    hints = type_hints(kind)
    for name in given:
        if name not in hints:
            raise VerydeepError(unknown_setting(flag(name), [flag(known) for known in hints]))
    lists = lists_names(kind)
    return {
        name: _parse(hints[name], [value] if name in lists and isinstance(value, str) and value else value, flag(name))
        for name, value in given.items()
    }


def unknown_setting(name: str, known: list[str]) -> str:
    """The message for a setting that does not exist."""
    near = nearest_setting(name, known)
    return f"unknown setting {name!r}" + (f": did you mean {near!r}?" if near else "; --help lists the settings.")


def _parse(hint: Any, value: Any, name: str) -> Any:
    """A value of the field's type from text (a flag, JSON) or from the value itself."""
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if value in choices:
            return value
        near = nearest(str(value), choices)
        suggestion = f"; did you mean {near!r}?" if near else "."
        raise VerydeepError(f"{name} must be one of {', '.join(choices)}, not {value!r}{suggestion}")
    if get_origin(hint) is types.UnionType:
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return None if value in (None, "", "none") else _parse(kinds[0], value, name)
    if get_origin(hint) is tuple:
        if isinstance(value, str):
            parts = listed_paths(value) if name == "boxes" else value.split(",")
        else:
            parts = list(value) if isinstance(value, list | tuple) else [value]
        if value and not any(str(part).strip(" ,") for part in parts):
            raise VerydeepError(f"{name} is an empty list: pass values separated by commas, or leave it out.")
        return tuple(_parse(get_args(hint)[0], str(part).strip(), name) for part in parts if str(part).strip())
    if hint is Scale:
        return value if isinstance(value, Scale) else Scale.parse(str(value))
    if hint is bool:
        return _parse_bool(value, name)
    try:
        number = hint(value)
        if hint is str:
            number.encode("utf8", "surrogateescape")  # JSON can contain half of a surrogate pair
        inexact = hint is int and not isinstance(value, str) and number != value
        if inexact or (hint is float and not math.isfinite(number)):
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise VerydeepError(f"{name} must be {_KIND[hint]}, not {value!r}.") from None
    return number


_KIND = {int: "an integer", float: "a number", str: "text"}


def _parse_bool(value: Any, name: str) -> bool:
    words = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if str(value).lower() not in words:
        raise VerydeepError(f"{name} must be yes or no, not {value!r}.")
    return words[str(value).lower()]


def to_json(settings: Any) -> dict[str, Any]:
    """A settings dataclass as JSON values; `from_json` reads them."""
    values = {item.name: getattr(settings, item.name) for item in dataclasses.fields(settings)}
    return {
        name: str(value) if isinstance(value, Scale) else list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
    }


def from_json(kind: type[_Settings], values: dict[str, Any]) -> _Settings:
    """Settings from the values of `to_json`; raises VerydeepError for unknown settings or invalid values."""
    return kind(**typed(kind, values))


def as_typed(value: Any) -> str:
    """A setting's value as text on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def field_help(kind: type) -> list[SettingHelp]:
    """The settings of a dataclass as `--help` shows them."""
    rows = []
    hints = type_hints(kind)
    for item in dataclasses.fields(typing.cast(Any, kind)):
        hint = hints[item.name]
        if get_origin(hint) is types.UnionType:  # of a type and None
            hint = get_args(hint)[0]
        if get_origin(hint) is Literal:
            placeholder = "|".join(get_args(hint))
        elif hint is bool:
            placeholder = "yes|no"
        else:
            placeholder = {int: "N", float: "X", str: "TEXT", Scale: "PIXELS"}.get(hint, "LIST")
        placeholder = item.metadata["placeholder"] or placeholder
        rows.append(SettingHelp(item.name, placeholder, item.metadata["help"], item.metadata["group"], item.default))
    return rows


def check_crop(crop: int) -> int:
    """Returns the crop; raises VerydeepError unless it is a positive multiple of 32."""
    if crop < STRIDE or crop % STRIDE:
        near = max(STRIDE, round(crop / STRIDE) * STRIDE)
        raise VerydeepError(f"crop {crop} must be a multiple of {STRIDE}, as five poolings halve it: use {near}.")
    return crop
