"""The networks of the field, each library's as it is, brought to the signatures of training."""
