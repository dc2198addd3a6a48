"""Whole sweeps on a virtual clock, struck by faults that are data: what is stored must be right after every event."""
