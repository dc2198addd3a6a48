"""One training script for a trial, on plain transformers: put together from blocks of text, as the trial needs them."""
