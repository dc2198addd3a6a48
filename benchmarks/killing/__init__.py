"""Sweeps that are killed on purpose, and what must be true of them afterwards. Shared by benchmarks and tests."""
