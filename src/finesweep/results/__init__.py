"""The database that remembers sweeps: one writer, pandas out. Knows neither Optuna, Ray nor torch."""
