"""What a frozen part of a model computes, computed once: stored on disk, shared by trials, workers and sweeps.

`cache.FeatureCache` is the door. In: a sweep's model and data. Out: stored numbers, and models without their frozen
part that are fed with them.
"""
