"""The layout: packages import downwards only, and nothing in a circle."""

from __future__ import annotations

from layers import import_circle, long_functions, top_level, upward_imports


def test_imports_go_downwards() -> None:
    assert upward_imports() == []


def test_no_module_imports_one_that_imports_it() -> None:
    assert import_circle() == []


def test_the_top_level_is_taken_in_at_a_glance() -> None:
    assert len(top_level()) <= 15


def test_functions_are_small() -> None:
    """Files are as long as their subject."""
    assert long_functions() == []
