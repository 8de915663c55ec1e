"""Pages on runs: what a folder tells, made into HTML that holds all it shows."""
