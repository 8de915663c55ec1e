"""The commands, one module each: `verydeep.cli.parser` says what a module holds."""
