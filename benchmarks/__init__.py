"""Measures any OpenAI-compatible server, and `generate` beside it. See benchmarks/README.md."""
