from spslam.io.markdown import format_row, format_table


def test_columns_are_aligned_as_asked_and_left_otherwise() -> None:
    table = format_table(["name", "count", "note"], [["a", 1, None], ["b", 20, 0.5]], align="lr")
    assert table.splitlines() == [
        "| name | count | note |",
        "| --- | ---: | --- |",
        "| a | 1 | None |",
        "| b | 20 | 0.5 |",
    ]


def test_a_table_without_rows_has_its_head() -> None:
    assert format_table(["a"], []) == "| a |\n| --- |"


def test_a_cell_ends_neither_its_row_nor_its_column() -> None:
    assert format_row(["a|b", "two\n lines", ""]) == "| a\\|b | two lines |  |"
