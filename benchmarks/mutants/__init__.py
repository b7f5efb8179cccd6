"""Random training set-ups with one fault planted, which judge `nnref diagnose`."""
