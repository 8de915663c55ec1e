"""The commands, a function each."""
