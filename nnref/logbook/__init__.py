"""The logbook: what is written down of every run, and how it is found again."""
