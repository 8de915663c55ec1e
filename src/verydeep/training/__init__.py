"""Section 3.1: training."""
