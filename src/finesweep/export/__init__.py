"""The best configuration of a sweep, made portable: one neutral record, then one file per target."""
