"""Export to other runtimes, the server, benchmarks."""
