"""Training of learned matchers: views, pairs, losses, the loop."""
