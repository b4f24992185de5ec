"""Training of learned matchers: pairs, losses, the loop."""
