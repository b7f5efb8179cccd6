"""Reports: what a run says to a person, in the terminal and as a picture."""
