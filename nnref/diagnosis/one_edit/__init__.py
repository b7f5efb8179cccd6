"""Small edits of the user's own lines: made one at a time, trained, and judged by the user."""
