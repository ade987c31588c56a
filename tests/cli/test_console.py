import json

import pytest

from inlay.cli.console import chart, emit_json, human_bytes, human_count, human_seconds, print_table


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (1023.6 * 1024, "1.00 MiB"),
        (3.4 * 2**30, "3.40 GiB"),
        (139 * 2**30, "139 GiB"),
        (5000 * 2**40, "5000 TiB"),
    ],
)
def test_bytes(count, text):
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (12_345, "12.3 k"), (859_520_964, "860 M"), (999_600, "1.00 M")],
)
def test_counts(count, text):
    assert human_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 ms"),
        (0.0042, "4.20 ms"),
        (0.9999, "1.0 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (86_399, "1 d 0 h"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations(seconds, text):
    assert human_seconds(seconds) == text


def test_a_table_shows_brackets_as_they_are(capsys):
    print_table(["name", ">size"], [("tuple[str, ...]", 12), ("[red]", 3)], title="Sizes")
    shown = capsys.readouterr().out
    assert "tuple[str, ...]" in shown
    assert "[red]" in shown
    assert shown.splitlines()[0] == "Sizes"


def test_json_refuses_what_json_does_not_have(capsys):
    emit_json({"a": [1, None]})
    assert json.loads(capsys.readouterr().out) == {"a": [1, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        emit_json({"a": float("nan")})


def test_a_chart_has_a_column_a_value_in_eighths_of_a_row():
    assert chart([4, 2, 1, 0], height=2) == ["█   ", "██▄ "]
    assert chart([8, 0.01, 0], height=1) == ["█▁ "]  # what is not 0 can be seen


def test_a_charts_columns_are_means_of_their_values():
    assert chart([0, 8, 2, 2, 4, 4], width=3, height=1) == ["█▄█"]
    rows = chart([1.0] * 1000)
    assert rows == ["█" * 64] * 5


def test_colons_in_a_cell_are_no_emoji(capsys):
    print_table(["pictures"], [["tabletop:train: 40 [to train on]"]])
    assert "tabletop:train: 40 [to train on]" in capsys.readouterr().out
