from spslam.io.markdown import format_row, format_table


def test_columns_are_aligned_as_requested_and_left_otherwise() -> None:
    table = format_table(["name", "count", "note"], [["a", 1, None], ["b", 20, 0.5]], align="lr")
    assert table.splitlines() == [
        "| name | count | note |",
        "| --- | ---: | --- |",
        "| a | 1 | None |",
        "| b | 20 | 0.5 |",
    ]


def test_a_table_without_rows_has_a_header() -> None:
    assert format_table(["a"], []) == "| a |\n| --- |"


def test_pipes_and_line_breaks_in_cells_are_escaped() -> None:
    assert format_row(["a|b", "two\n lines", ""]) == "| a\\|b | two lines |  |"
