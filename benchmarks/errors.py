"""What ends a benchmark before it has measured anything."""


class BenchmarkError(Exception):
    """One line for whoever started the benchmark: what is wrong, and what to do next."""
