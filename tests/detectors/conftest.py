import signal

import pytest


@pytest.fixture(scope="session", autouse=True)
def torch_home(tmp_path_factory):
    """Where weights and proposals are kept: not in the home folder. Processes that tests start know it too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch_home")))
        yield


@pytest.fixture(scope="module")
def one_thread():
    """Of torch: while the emulator's runs want a core, threads that wait for each other take trainings half as long
    again. Not where runs are compared to the bit: with one, the first training of a process may differ in the last."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def heard():
    """A suite that runs in the background or under nohup ignores SIGINT or SIGHUP, and so would the runs in it."""
    from boxops.training.signals import STOPPING

    before = {number: signal.getsignal(number) for number in STOPPING}
    for number in before:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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


@pytest.fixture
def small_files():
    """No file can grow beyond so many bytes, as on a full disk: for the kernel, not for a mock."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
