"""From what was measured to findings: what is the cause, and what its symptom."""
