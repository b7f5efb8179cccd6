"""Why does a network not learn? Findings, the cause before its symptoms."""
