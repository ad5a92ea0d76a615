"""Speed, measured: ``make bench`` or ``python -m benchmarks``; the results are in docs/benchmark.md."""
