"""Section 2: the nets of Table 1, their layers and their arithmetic."""
