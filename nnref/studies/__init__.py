"""Studies: one run and its record, many runs as few programs, and honest comparisons."""
