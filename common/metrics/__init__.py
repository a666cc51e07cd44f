"""Every metric of the study, once, in NumPy, from saved predictions only."""
