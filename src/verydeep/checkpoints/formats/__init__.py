"""Readers and writers of public weight files, one module a framework."""
