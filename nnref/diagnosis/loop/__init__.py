"""The user's own loop: their step is called on copies, traced, and asked what it does."""
