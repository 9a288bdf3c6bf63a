import os
import pathlib
import subprocess
import sys

import backends
import cuda_emulator
import pytest
from hypothesis import settings

# Tests are small: threads are taken from 20 us of work on, so that they test threads too.
os.environ.setdefault("BOXOPS_WAKE_US", "5")

settings.register_profile("boxops", max_examples=50, deadline=None, derandomize=True)
settings.load_profile("boxops")


def parameters(*choices):
    return [pytest.param(b, id=b.name, marks=[pytest.mark.gpu] if b is backends.CUDA else []) for b in choices]


@pytest.fixture(scope="session", params=parameters(*backends.BACKENDS))
def backend(request):
    """Each backend in turn; a test that takes it runs on all of them."""
    request.param.require()
    return request.param


@pytest.fixture(scope="session", params=parameters(backends.TORCH, backends.CUDA))
def device(request):
    """Each device that torch can have."""
    request.param.require()
    return request.param.device


@pytest.fixture(scope="session")
def torchvision():
    """The second opinion."""
    backends.TORCH.require()
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:  # its binary fits one torch only
        pytest.skip(f"torchvision cannot be imported: {error}")
    return torchvision.ops


@pytest.fixture(scope="session")
def data():
    """The folder of real images, annotations and weights."""
    if "BOXOPS_TEST_DATA" not in os.environ:
        pytest.skip("BOXOPS_TEST_DATA names no folder of real data")
    return pathlib.Path(os.environ["BOXOPS_TEST_DATA"])


EMULATOR_RUNS = pytest.StashKey()


def pytest_collection_modifyitems(items):
    """The runs of the CUDA emulator take longest: they start first, and are waited for last."""
    items.sort(key=lambda item: not {"emulator_runs", "race_build"}.isdisjoint(item.fixturenames))


def pytest_collection_finish(session):
    waited_for = any("emulator_runs" in item.fixturenames for item in session.items)
    if not waited_for or session.config.option.collectonly or not cuda_emulator.can_build():
        return
    cuda_emulator.module()  # as it is now: whether the tests here use it must not depend on how far the runs are
    folder = session.config._tmp_path_factory.mktemp("emulator")
    runs = session.config.stash[EMULATOR_RUNS] = {}
    for variant in cuda_emulator.VARIANTS:
        with (folder / variant).open("w") as log:
            # Niced, they fill the cores that the tests here leave idle; but asan takes longest.
            nice = [] if variant == "asan" else ["nice"]
            command = [*nice, sys.executable, pathlib.Path(cuda_emulator.__file__).parent, variant]
            runs[variant] = subprocess.Popen(command, stdout=log, stderr=log), folder / variant


def pytest_sessionfinish(session):
    for process, _ in session.config.stash.get(EMULATOR_RUNS, {}).values():
        process.kill()


@pytest.fixture(scope="session")
def race_build():
    """The folder of the emulator's race build. Late: by then its run of all tests has built it."""
    pytest.importorskip("pybind11")
    return cuda_emulator.build("race", "_numpy_ops")


@pytest.fixture(scope="session")
def emulator_runs(pytestconfig):
    """Of each variant of the emulator the process that runs all tests of kernels, and its log."""
    pytest.importorskip("pybind11")
    return pytestconfig.stash[EMULATOR_RUNS]
