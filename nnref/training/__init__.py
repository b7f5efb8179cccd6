"""Training: from an experiment, or a user's functions, to steps and epochs."""
