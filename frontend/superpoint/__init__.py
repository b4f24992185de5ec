"""The SuperPoint network, its weights, and what its maps are decoded to."""
