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
    """The training scale S: the smallest side in pixels, fixed or drawn from [smallest, largest]."""

    smallest: int
    largest: int

    @staticmethod
    def parse(text: str) -> Scale:
        """``256`` or ``256-512``; raises VerydeepError."""
        match = re.fullmatch(r"(\d{1,99})(?:-(\d{1,99}))?", text.strip())
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise VerydeepError(f"S {text[:60]!r} is not a scale: give one (256) or a range (256-512), in pixels.")
        if int(match[2] or match[1]) > LARGEST_SIDE:
            raise VerydeepError(f"S {text[:60]} is above {LARGEST_SIDE} pixels, more than any photo needs.")
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


def setting(default: Any, text: str, group: str, names: bool = False) -> Any:
    """A field of a settings dataclass: its default, its help text, and the group of arguments in which help shows it.

    Args:
        names: a tuple of lists of names, each as typed: only code that knows the names can tell which commas part two.
    """
    return field(default=default, metadata={"help": text, "group": group, "names": names})


class SettingHelp(NamedTuple):
    """What `--help` shows of a setting."""

    name: str
    placeholder: str
    text: str
    group: str
    default: Any


def lists_names(kind: type) -> set[str]:
    """The fields that hold lists of names, whose flags can be repeated."""
    return {item.name for item in dataclasses.fields(typing.cast(Any, kind)) if item.metadata.get("names")}


def comma_parts(lists: tuple[str, ...]) -> tuple[str, ...]:
    """What stands between the commas of several lists."""
    return tuple(part.strip() for text in lists for part in text.split(","))


def flag(name: str) -> str:
    """How a setting is written on the command line, without the dashes."""
    return name.replace("_", "-")


@cache
def type_hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields, cached: evaluating their annotations takes milliseconds."""
    return get_type_hints(kind)


def typed(kind: type, given: dict[str, Any]) -> dict[str, Any]:
    """Given settings, as text or values, with the types of the dataclass's fields.

    Raises:
        VerydeepError: an unknown setting (the nearest is suggested) or a value that does not fit.
    """
    hints = type_hints(kind)
    for name in given:
        if name not in hints:
            raise VerydeepError(unknown_setting(flag(name), [flag(known) for known in hints]))
    whole = lists_names(kind)
    given = {
        name: [value] if name in whole and isinstance(value, str) and value else value for name, value in given.items()
    }
    return {name: _parse(hints[name], value, flag(name)) for name, value in given.items()}


def unknown_setting(name: str, known: list[str]) -> str:
    """The sentence for a setting that does not exist."""
    near = nearest_setting(name, known)
    return f"there is no setting {name!r}" + (f": did you mean {near!r}?" if near else "; --help lists them.")


def _parse(hint: Any, value: Any, name: str) -> Any:
    """A value of the field's type from text (a flag, JSON) or from the value itself."""
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if value in choices:
            return value
        near = nearest(str(value), choices)
        hint_text = f"did you mean {near!r}? " if near else ""
        raise VerydeepError(f"{name} is one of {', '.join(choices)}, not {value!r}. {hint_text}".strip())
    if get_origin(hint) is types.UnionType:
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return None if value in (None, "", "none") else _parse(kinds[0], value, name)
    if get_origin(hint) is tuple:
        if isinstance(value, str):
            parts = listed_paths(value) if name == "boxes" else value.split(",")
        else:
            parts = list(value) if isinstance(value, list | tuple) else [value]
        if value and not any(str(part).strip(" ,") for part in parts):
            raise VerydeepError(f"{name} lists nothing: give values with commas between, or leave it out.")
        return tuple(_parse(get_args(hint)[0], str(part).strip(), name) for part in parts if str(part).strip())
    if hint is Scale:
        return value if isinstance(value, Scale) else Scale.parse(str(value))
    if hint is bool:
        return _parse_bool(value, name)
    try:
        number = hint(value)
        if hint is str:
            number.encode("utf8", "surrogateescape")  # JSON can tell half of a surrogate pair
    except (ValueError, TypeError, OverflowError):
        raise VerydeepError(f"{name} takes {_KIND[hint]}, not {value!r}.") from None
    if (hint is int and not isinstance(value, str) and number != value) or (
        hint is float and not math.isfinite(number)
    ):
        raise VerydeepError(f"{name} takes {_KIND[hint]}, not {value!r}.")
    return number


_KIND = {int: "a whole number", float: "a number", str: "text"}


def _parse_bool(value: Any, name: str) -> bool:
    words = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if str(value).lower() not in words:
        raise VerydeepError(f"{name} is yes or no, not {value!r}.")
    return words[str(value).lower()]


def to_json(settings: Any) -> dict[str, Any]:
    """A settings dataclass as JSON values; `from_json` is the way back."""
    values = {item.name: getattr(settings, item.name) for item in dataclasses.fields(settings)}
    return {
        name: str(value) if isinstance(value, Scale) else list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
    }


def from_json(kind: type[_Settings], values: dict[str, Any]) -> _Settings:
    """The dataclass `to_json` wrote; raises VerydeepError for unknown or mistyped settings."""
    return kind(**typed(kind, values))


def as_typed(value: Any) -> str:
    """A setting's value as text on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def field_help(kind: type) -> list[SettingHelp]:
    """Help of each setting of a dataclass, for the command line."""
    rows = []
    hints = type_hints(kind)
    for item in dataclasses.fields(typing.cast(Any, kind)):
        hint = hints[item.name]
        if get_origin(hint) is types.UnionType:  # of a kind and None
            hint = get_args(hint)[0]
        if get_origin(hint) is Literal:
            placeholder = "|".join(get_args(hint))
        elif hint is bool:
            placeholder = "yes|no"
        else:
            placeholder = {int: "N", float: "X", str: "TEXT", Scale: "S"}.get(hint, "LIST")
        rows.append(SettingHelp(item.name, placeholder, item.metadata["help"], item.metadata["group"], item.default))
    return rows


def check_crop(crop: int) -> int:
    """The crop itself, if the five poolings divide it.

    Raises:
        VerydeepError: not a multiple of 32, or below 32.
    """
    if crop < STRIDE or crop % STRIDE:
        near = max(STRIDE, round(crop / STRIDE) * STRIDE)
        raise VerydeepError(
            f"crop {crop} is not a multiple of {STRIDE} from {STRIDE} up (five poolings halve it): use {near}."
        )
    return crop
