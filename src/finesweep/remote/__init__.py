"""Trials that are jobs of a fine-tuning server: beside or instead of the GPUs here.

A trainer like any other: it knows neither Optuna, Ray nor the database. Works with any server of the protocol, through
the `openai` client library.
"""
