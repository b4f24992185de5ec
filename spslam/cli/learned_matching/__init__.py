"""Commands of the learned matcher."""
