"""Training of the SuperPoint network: data, losses, training loop, evaluation."""
