import os
import pathlib

import backends
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
