"""Comparison of matchers on pairs with known geometry."""
