"""The keywords that editors complete are the fields of the settings, with their types."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import fields
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest

import verydeep
from verydeep.core import arguments
from verydeep.core.config import type_hints

PAIRS = [
    (verydeep.DataSettings, arguments.DataArguments),
    (verydeep.TrainSettings, arguments.TrainArguments),
    (verydeep.BoxSettings, arguments.BoxArguments),
    (verydeep.MachineSettings, arguments.MachineArguments),
]


def kinds(hint: Any) -> set[Any]:
    """The members of a union, or the type; a tuple or sequence of a type is a pair."""
    if get_origin(hint) is UnionType:
        return set().union(*map(kinds, get_args(hint)))
    if get_origin(hint) in (tuple, Sequence):
        return {("several", kind) for kind in kinds(get_args(hint)[0])}
    return {hint}


@pytest.mark.parametrize(("settings", "keywords"), PAIRS)
def test_keywords_are_the_fields_with_their_types(settings: type, keywords: type) -> None:
    hints, types = get_type_hints(keywords), type_hints(settings)
    assert list(hints) == list(types)
    for name, hint in types.items():
        assert kinds(hint) <= kinds(hints[name]), name


def test_signatures_show_every_setting() -> None:
    """As `help` and notebooks complete them, with their defaults."""
    for function, settings in (
        (verydeep.train, [verydeep.DataSettings, verydeep.TrainSettings, verydeep.MachineSettings]),
        (verydeep.train_boxes, [settings for settings, _ in PAIRS]),
    ):
        shown = inspect.signature(function).parameters
        for kind in settings:
            for item in fields(kind):
                assert shown[item.name].default == item.default
        assert "given" not in shown


def test_unknown_keywords_are_sentences() -> None:
    with pytest.raises(verydeep.VerydeepError, match="did you mean 'lr'"):
        verydeep.train("A", data="photos", lrr=1)  # type: ignore[call-arg]
