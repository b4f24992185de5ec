"""Steps of an adaptation: its files and progress, labels, evaluation."""
