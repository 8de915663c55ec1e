"""The data sets that `open_data` knows, one module each."""
