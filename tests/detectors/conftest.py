import pytest


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, with a checkpoint of `bright` above it."""
    import bright

    from boxops.models import MODELS

    monkeypatch.setitem(MODELS, "bright", bright.bright)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    bright.checkpoint(tmp_path / "model.pt")
    return tmp_path / "here"
