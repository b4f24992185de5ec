"""Training loop of one stage: one or several processes, resumable."""
