"""The way of the rows to the network: what a loader gives, held against the raw rows."""
