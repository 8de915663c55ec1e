"""Sect. 1: nets out to other runtimes, checked, and exported files in a net's place."""
