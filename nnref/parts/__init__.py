"""Parts: everything that an experiment can name. One file a family, one dict at its foot."""
