"""Why does a network not learn? Findings, the cause before its symptoms.

It looks at the data, at the traced program, at a short run, and judges at the end.
"""
