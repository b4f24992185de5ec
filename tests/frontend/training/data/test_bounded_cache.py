"""A cache keeps the values that fit into its memory."""

from spslam.frontend.training.data.bounded_cache import BoundedCache


def test_the_first_values_that_fit_are_kept() -> None:
    cache = BoundedCache[str](5, len)
    made: list[str] = []

    def make(text: str) -> str:
        made.append(text)
        return text

    def get(text: str) -> str:
        return cache.get(text, lambda: make(text))

    assert [get(text) for text in ("abc", "def", "gh", "abc", "def", "gh", "i")] == [
        *("abc", "def", "gh", "abc", "def", "gh", "i")
    ]
    # "def" does not fit after "abc"; "gh" fits and leaves no memory for "i".
    assert made == ["abc", "def", "gh", "def", "i"]
    assert cache.bytes == 5


def test_a_cache_without_memory_keeps_nothing() -> None:
    cache = BoundedCache[str](0, len)
    assert cache.get("a", lambda: "a") == "a"
    assert cache.get("a", lambda: "b") == "b"
    assert cache.bytes == 0
