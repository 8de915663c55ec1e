"""Sections 3.2 and 4: testing protocols, posteriors, errors."""
