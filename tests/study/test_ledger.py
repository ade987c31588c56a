import json

import pytest

from inlay.errors import ArtifactError
from inlay.study.ledger import LEDGER, LINE_BYTES, Ledger, read_ledger


def test_events_come_back_in_order(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append("start", cell="a", attempt=1)
    ledger.close()
    again = Ledger(tmp_path)
    again.append("done", cell="a", seconds=1.5)
    again.close()
    events = read_ledger(tmp_path)
    assert [(event["event"], event["cell"]) for event in events] == [("start", "a"), ("done", "a")]
    assert read_ledger(tmp_path / "nowhere") == []


@pytest.mark.parametrize("torn", ['{"event":"do', '{"event":"start","cell":"b"', "\x00\x00", '"event"'])
def test_a_torn_line_costs_only_itself(tmp_path, torn):
    ledger = Ledger(tmp_path)
    ledger.append("start", cell="a")
    ledger.close()
    with (tmp_path / LEDGER).open("a") as file:
        file.write(torn)
    assert len(read_ledger(tmp_path)) == 1
    ledger = Ledger(tmp_path)
    ledger.append("done", cell="a")
    ledger.close()
    assert [event["event"] for event in read_ledger(tmp_path)] == ["start", "done"]


@pytest.mark.parametrize("letter", ["x", "é", "\u2028", '"'])
def test_long_reasons_are_cut_to_a_line_that_is_written_at_once(tmp_path, letter):
    ledger = Ledger(tmp_path)
    ledger.append("failed", cell="a", reason=letter * 20_000)
    ledger.close()
    [line] = (tmp_path / LEDGER).read_bytes().splitlines(keepends=True)
    assert len(line) <= LINE_BYTES
    event = json.loads(line)
    assert event["cell"] == "a"
    assert event["reason"].startswith(letter * 100)
    assert event["reason"].endswith("...")


def test_a_full_disk_is_said(tmp_path):
    (tmp_path / LEDGER).symlink_to("/dev/full")
    with pytest.raises(ArtifactError, match="No space left"):
        Ledger(tmp_path).append("start", cell="a")
