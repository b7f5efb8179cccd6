"""What a short run of training tells."""
