"""The SuperPoint network, its weights, and the decoder of its output maps."""
