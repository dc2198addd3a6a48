"""Optuna behind one object: what to try next, what to stop, what was learned. The only room that imports optuna."""
