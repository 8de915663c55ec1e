"""Weights on disk, whoever wrote them."""
