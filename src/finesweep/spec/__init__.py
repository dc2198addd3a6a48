"""Study and sweep files: what they may say, what is wrong with one, and the spec that comes of it. Nothing heavy."""
