"""The paper's tables as data, and how their rows are reproduced."""
