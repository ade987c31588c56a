import signal
import threading

import pytest

from inlay.train import graceful
from inlay.train.graceful import GracefulStop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request_and_a_later_one_ends(number, monkeypatch, capsys):
    monkeypatch.setattr(graceful, "ONE_REQUEST_SECONDS", 0.05)
    before = signal.getsignal(number)
    stop = GracefulStop(says=True)
    with stop.heeded():
        assert not stop.asked
        signal.raise_signal(number)
        assert stop.asked
        signal.raise_signal(number)  # a launcher's copy of the same Ctrl-C
        threading.Event().wait(0.1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before
    assert capsys.readouterr().err.count("stopping after this step") == 1


def test_only_one_process_confirms(capsys):
    stop = GracefulStop(says=False)
    with stop.heeded():
        signal.raise_signal(signal.SIGTERM)
    assert stop.asked
    assert capsys.readouterr().err == ""


def test_signals_are_left_alone_outside_the_main_thread():
    found = []

    def work():
        with GracefulStop(says=False).heeded():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]
