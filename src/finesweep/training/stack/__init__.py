"""Heads trained together: trials whose frozen features are stored, and that train a head alone, as one computation."""
