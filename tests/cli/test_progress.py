import time

import pytest

from inlay.cli import progress
from inlay.cli.progress import TerminalReporter
from inlay.train.loop import Progress


@pytest.fixture
def clock(monkeypatch):
    """Returns a function that lets seconds pass."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def test_long_work_says_how_long_it_takes(clock, capsys):
    reporter = TerminalReporter()
    for done in range(10, 51):  # goes on where a killed run was
        reporter.progress("drawing class pictures", done, 50)
        clock(1 + progress.PLAIN_SECONDS / 15)
    assert capsys.readouterr().out.splitlines() == [
        "drawing class pictures: 19 of 50, 1 min 12 s left",
        "drawing class pictures: 28 of 50, 51 s left",
        "drawing class pictures: 37 of 50, 30 s left",
        "drawing class pictures: 46 of 50, 9.3 s left",
        "drawing class pictures: 50 done",
    ]


def test_short_work_says_one_line_each_time(clock, capsys):
    reporter = TerminalReporter()
    for _ in range(2):
        for done in (1, 2, 3):
            reporter.progress("drawing previews", done, 3)
            clock(1)
    assert capsys.readouterr().out == "drawing previews: 3 done\n" * 2


def test_work_that_begins_anew_is_timed_anew(clock, capsys):
    reporter = TerminalReporter()
    reporter.progress("drawing previews", 1, 3)
    clock(1)
    reporter.progress("drawing previews", 3, 3)
    clock(5000)
    reporter.progress("drawing previews", 1, 3)
    clock(30)
    reporter.progress("drawing previews", 2, 3)
    assert "drawing previews: 2 of 3, 30 s left" in capsys.readouterr().out


def test_training_that_is_done_names_no_time_left(capsys):
    reporter = TerminalReporter()
    for step, seconds, left in ((1, 20.0, 20.0), (2, 40.0, 0.0)):
        reporter.step(Progress(step, 2, 4 * step, seconds, 0.5, 0.5, 1e-3, 1.0, left))
    assert capsys.readouterr().out.splitlines() == [
        "training: step 1, loss 0.5000, 0.2 images/s, 20 s left",
        "training: step 2, loss 0.5000, 0.2 images/s",
    ]
