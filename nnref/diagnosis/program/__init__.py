"""What the traced program of a network tells before it is trained."""
