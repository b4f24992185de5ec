"""The training loop: one stage, one process or several, resumed where it was stopped."""
