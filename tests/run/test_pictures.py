import math

import numpy as np
from PIL import Image

from inlay.run.pictures import BLOCK_GAP, GAP, TEXT, Block, Row, draw_loss, grid, save_picture

RED, BLUE = (255, 0, 0), (0, 0, 255)
LINE = TEXT + 8


def plain(colour, height, width=None):
    return np.full((height, width or height, 3), colour, np.uint8)


def boxes(canvas, colour):
    """Return (top, bottom, left, right) of all pixels of a colour."""
    rows, columns = np.nonzero((np.asarray(canvas) == colour).all(-1))
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def test_pictures_stand_where_they_should():
    row = Row("", [Block("before", [plain(RED, 200)] * 2), Block("after", [plain(BLUE, 200)])])
    canvas = grid([row])
    top = GAP + 2 * LINE
    assert boxes(canvas, RED) == (top, top + 200, BLOCK_GAP, BLOCK_GAP + 400 + GAP)
    after = BLOCK_GAP + 400 + GAP + BLOCK_GAP
    assert boxes(canvas, BLUE) == (top, top + 200, after, after + 200)
    assert canvas.width == after + 200 + BLOCK_GAP
    between = np.asarray(canvas)[top : top + 200, BLOCK_GAP + 200 : BLOCK_GAP + 200 + GAP]
    assert (between == 255).all()


def test_small_pictures_are_enlarged_by_whole_pixels_and_large_ones_reduced():
    small = plain(RED, 32)
    small[0, 0] = BLUE
    top, bottom, left, right = boxes(grid([Row("", [Block("", [small])])]), BLUE)
    assert (bottom - top, right - left) == (4, 4)  # 144 / 32, rounded
    top, bottom, left, right = boxes(grid([Row("", [Block("", [plain(RED, 512, 256)])])]), RED)
    assert (bottom - top, right - left) == (256, 128)


def test_rows_of_different_heights_do_not_overlap():
    rows = [
        Row("one", [Block("", [plain(RED, 200, 150), plain(RED, 150, 200)])]),
        Row("two", [Block("", [plain(BLUE, 150)])]),
    ]
    canvas = grid(rows)
    assert boxes(canvas, BLUE)[0] == boxes(canvas, RED)[1] + GAP + 2 * LINE
    assert boxes(canvas, BLUE)[1] <= canvas.height


def test_a_long_line_of_text_widens_the_canvas():
    short, long = (grid([Row(text, [Block("", [plain(RED, 144)])])]) for text in ("a dog", "a [b]dog[/b] 🐶 " * 20))
    assert long.width > 3 * short.width
    dark = (np.asarray(long.convert("L"))[: GAP + LINE] < 128).any(0).nonzero()[0]
    assert dark.max() < long.width


def test_the_loss_curve_of_a_long_run_is_drawn_at_once(tmp_path):
    trace = [{"step": step, "loss": 1 / step} for step in range(1, 50_001)]
    trace[-1]["validation_loss"] = 0.5
    trace[-2]["validation_loss"] = None
    path = draw_loss(trace, tmp_path / "loss.png")
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert (pixels == (0x1F, 0x4E, 0x96)).all(-1).sum() > 100  # the mean
    assert (pixels == (0xC2, 0x57, 0x1A)).all(-1).any()  # the held-out pictures


def test_the_mean_is_the_moving_average(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn = []
    plot = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda self, *given, **style: drawn.append(given) or plot(self, *given, **style))
    losses = [float(number**2 % 7) for number in range(60)]
    draw_loss([{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)], tmp_path / "loss.png")
    means = drawn[1][1]
    for end in range(1, 61):
        part = losses[max(0, end - 3) : end]
        assert math.isclose(means[end - 1], sum(part) / len(part))


def test_pictures_are_saved_as_they_are(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8))
    path = save_picture(picture, tmp_path / "deep" / "x.png")
    assert (np.asarray(Image.open(path)) == np.asarray(picture)).all()
