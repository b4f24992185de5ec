"""Network weights with their cards."""
