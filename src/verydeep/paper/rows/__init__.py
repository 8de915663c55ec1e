"""The rows of the paper's tables as data."""
