"""What the tests of running answers share."""

import pytest


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a second by default takes a hundredth here."""
    monkeypatch.setattr("chatstream.generations.beats.BEAT_INTERVAL", 0.01)
    monkeypatch.setattr("chatstream.generations.generation._SAVE_PAUSE", 0.01)
    monkeypatch.setattr("chatstream.generations.commands._STOP_LOOK_INTERVAL", 0.01)
    monkeypatch.setattr("chatstream.generations.hub._SHUTDOWN_SPREAD", 0.01)
    monkeypatch.setattr("chatstream.generations.elsewhere._SECOND_LOOK", 0)
    monkeypatch.setattr("chatstream.generations.elsewhere._LOOK_INTERVAL", 0)
