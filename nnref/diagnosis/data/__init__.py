"""What the data alone tell: what is to be learned, and what simple models learn of it."""
