import xml.etree.ElementTree as ET

import pytest

from inlay.run.compare.plots import HEIGHT, WIDTH, Axis, Series, line_chart, scatter, tick_text


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis("", 0, 10), [0, 2, 4, 6, 8, 10]),
        (Axis("", 0.31, 0.59), [0.35, 0.4, 0.45, 0.5, 0.55]),
        (Axis("", 8_000, 20_000_000, log=True), [10_000, 100_000, 1_000_000, 10_000_000]),
        (Axis("", 40, 900, log=True), [50, 100, 200, 500]),
    ],
)
def test_ticks_are_round(axis, ticks):
    assert axis.ticks() == pytest.approx(ticks)
    assert all(0 <= axis.place(tick) <= 1 for tick in ticks)


def test_places_are_proportional_or_logarithmic():
    assert Axis("", 0, 10).place(2.5) == 0.25
    assert Axis("", 1, 10_000, log=True).place(100) == pytest.approx(0.5)


def test_an_axis_over_one_value_has_room():
    for log in (False, True):
        axis = Axis.over("", [5.0, 5.0], log)
        assert axis.low < 5 < axis.high
        assert axis.ticks()


@pytest.mark.parametrize(("value", "text"), [(12000, "12k"), (2.5e6, "2.5M"), (0.1 + 0.2, "0.3"), (0, "0")])
def test_ticks_are_short(value, text):
    assert tick_text(value) == text


def test_a_chart_is_xml_and_escapes_names():
    series = [Series(index, f"<run & {index}>", [(0, 1.0), (10, 2.0)]) for index in range(20)]
    svg = line_chart(series, Axis.over("step", [0, 10], zero=True), Axis.over("loss", [1.0, 2.0]), "loss", dots=True)
    root = ET.fromstring(svg)
    groups = [group for group in root.iter("g") if "run" in group.get("class", "")]
    assert len(groups) == 20
    assert groups[0][0].text == "<run & 0>"
    assert len({group.get("class") for group in groups}) == 20  # colour and stroke tell all of them apart


def test_labels_of_close_points_do_not_cover_each_other_and_stay_inside():
    series = [Series(index, f"method-{index}", [(100.0 + index, 0.5 + 0.001 * index)]) for index in range(4)]
    svg = scatter(series, [(100.0, 0.5)], Axis.over("x", [100, 103, 10_000], log=True), Axis.over("y", [0.4, 0.6]), "")
    texts = [text for text in ET.fromstring(svg).iter("text") if text.get("class") == "name"]
    boxes = []
    for text in texts:
        x, y, width = float(text.get("x")), float(text.get("y")), 6.4 * len(text.text)
        left = x - {"start": 0, "middle": width / 2, "end": width}[text.get("text-anchor")]
        boxes.append((left, y - 10, left + width, y + 3))
    for left, top, right, bottom in boxes:
        assert left >= 0
        assert right <= WIDTH
        assert top >= 0
        assert bottom <= HEIGHT
    for index, one in enumerate(boxes):
        for other in boxes[:index]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
