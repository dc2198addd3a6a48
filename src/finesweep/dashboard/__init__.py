"""A local web page over one results database: sweeps, trials and comparisons, live and read-only."""
