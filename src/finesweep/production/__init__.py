"""What becomes of a trial outside of its sweep: a model trained from its record, tried on rows, and the trial itself
trained again. Composed of training, exports and results; it must not know what searches or schedules.
"""
