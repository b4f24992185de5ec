"""Views of photographs and worlds, their features, and the true matches of pairs of them."""
