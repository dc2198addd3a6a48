"""The room that trains: torch, transformers and datasets are imported here (and in export) and nowhere else."""
