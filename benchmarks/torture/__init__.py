"""Kills, torn pages, full disks, made-up inputs: `python -m benchmarks.torture`."""
