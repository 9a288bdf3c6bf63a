"""The backends that every case runs on, and the comparison of one with the reference.

A backend turns NumPy arrays into its own, calls the op, and turns the result back. `require` skips
the test, with the reason, where the backend cannot run.
"""

import functools
import os

import cases
import numpy as np
import pytest

import boxops
from boxops import reference

try:
    import torch
except ImportError:
    torch = None


# The same values in other memory.
NUMPY_LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "reversed rows": lambda x: x[::-1].copy()[::-1],
    "reversed columns": lambda x: x[..., ::-1].copy()[..., ::-1],
    "every second row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "part of a wider array": lambda x: np.pad(x, [(1, 2)] * x.ndim)[(slice(1, -2),) * x.ndim],
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "unaligned": lambda x: np.frombuffer(b"\0" + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
}
TORCH_LAYOUTS = {
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "every second row": lambda x: x.repeat_interleave(2, 0)[::2],
    "part of a wider tensor": lambda x: torch.nn.functional.pad(x, [1, 2] * x.dim())[(slice(1, -2),) * x.dim()],
    "lazily negated": lambda x: torch._neg_view(-x),
}


class NumPy:
    name = "numpy"
    ops = boxops
    layouts = NUMPY_LAYOUTS

    def require(self):
        pass

    def has(self, dtype):
        return dtype != "bfloat16"

    def to_array(self, array, dtype=None):
        return array

    def to_numpy(self, array):
        assert isinstance(array, np.ndarray | np.generic), f"NumPy arrays gave a {type(array)}"
        return np.asarray(array)

    def dtype_of(self, array):
        return array.dtype.name

    def run(self, op, arguments, dtype=None, fixed=()):
        """The op on NumPy arguments; with dtype bfloat16, float32 arrays become that, but for those in `fixed`."""
        return getattr(self.ops, op)(**self.converted(arguments, dtype, fixed))

    def converted(self, arguments, dtype=None, fixed=()):
        def convert(name, value):
            if isinstance(value, list):
                return [convert(name, item) for item in value]
            if not isinstance(value, np.ndarray):
                return value
            return self.to_array(value, dtype if value.dtype == np.float32 and name not in fixed else None)

        return {name: convert(name, value) for name, value in arguments.items()}


class Torch(NumPy):
    layouts = TORCH_LAYOUTS

    def __init__(self, device):
        self.name, self.device = f"torch-{device}", device

    def require(self):
        if torch is None:
            missing("torch is not installed", self.device == "cuda")
        elif self.device == "cuda" and not torch.cuda.is_available():
            missing("there is no CUDA device", True)

    def has(self, dtype):
        return True

    def to_array(self, array, dtype=None):
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy()).to(self.device)
        return tensor.bfloat16() if dtype == "bfloat16" else tensor

    def to_numpy(self, tensor):
        assert isinstance(tensor, torch.Tensor), f"tensors gave a {type(tensor)}"
        assert tensor.device.type == self.device
        tensor = tensor.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()

    def dtype_of(self, tensor):
        return str(tensor.dtype).removeprefix("torch.")


class Emulated(NumPy):
    """The CUDA sources, run on the CPU by tests/cuda_emulator."""

    name = "emulated-cuda"

    @functools.cached_property
    def ops(self):
        return emulated()

    def require(self):
        if self.ops is None:
            pytest.skip("the CUDA emulator is not built")


def emulated():
    """A module with the public functions on NumPy arrays, computed by the emulated kernels; None if not built."""
    try:
        from cuda_emulator import load
    except ImportError:
        return None
    return load()


def missing(reason, cuda=False):
    """Skips the test, or fails it where a person has promised that this machine has CUDA."""
    if cuda and os.environ.get("BOXOPS_REQUIRE_CUDA") == "1":
        pytest.fail(f"{reason}, and BOXOPS_REQUIRE_CUDA=1")
    pytest.skip(reason)


NUMPY, TORCH, EMULATED, CUDA = BACKENDS = (NumPy(), Torch("cpu"), Emulated(), Torch("cuda"))
FRAMEWORKS = pytest.mark.parametrize("framework", [NUMPY, TORCH], ids=["numpy", "torch"])


def results_of(backend, op, arguments, **more):
    """The results of the op on the backend's own arrays, as a list of NumPy arrays."""
    got = getattr(backend.ops, op)(**arguments, **more)
    return [backend.to_numpy(part) for part in (got if isinstance(got, tuple) else (got,))]


@functools.cache
def expected(op, case, dtype):
    return getattr(reference, op)(**case.arguments(dtype))


def check_cases(backend, op, dtype):
    """Runs the op's cases of one dtype, and compares the results with the reference's."""
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    failures = []
    # The emulator is slow, and its lines are those of float32 but for loads, stores and the sizes of blocks.
    step = 3 if backend.name == "emulated-cuda" and dtype != "float32" else 1
    for case in cases.CASES[op][::step]:
        if dtype in case.dtypes:
            try:
                check_case(backend, op, case, dtype)
            except Exception as error:
                failures.append(f"--- {case.name}: {type(error).__name__}: {str(error).strip()[:600]}")
    assert not failures, f"{len(failures)} cases fail\n" + "\n".join(failures[:8])


def check_case(backend, op, case, dtype):
    compare, arguments = cases.COMPARE.get(op, cases.equal), case.arguments(dtype)
    got, want = backend.run(op, arguments, dtype, case.fixed), expected(op, case, dtype)
    results = zip(got, want, strict=True) if isinstance(want, tuple) else [(got, want)]
    for got, want in results:
        want, dtype_wanted = np.asarray(want), want.dtype.name
        if dtype == "bfloat16" and op in cases.KEEP_DTYPE and want.dtype == np.float32:
            want, dtype_wanted = cases.as_dtype(want, dtype), dtype
        assert backend.dtype_of(got) == dtype_wanted, f"dtype {backend.dtype_of(got)} instead of {dtype_wanted}"
        got = backend.to_numpy(got)
        assert got.shape == want.shape, f"shape {got.shape} instead of {want.shape}"
        compare(got, want, dtype, arguments)


def check_layouts(backend, op, arguments):
    """Every layout of every array gives what the contiguous arrays give."""
    arrays = backend.converted(arguments)
    call = getattr(backend.ops, op)
    for layout, relaid in backend.layouts.items():
        for name, array in arrays.items():
            if not hasattr(array, "dtype"):
                continue
            laid = relaid(array)
            got, want = call(**{**arrays, name: laid}), call(**arrays)
            for g, w in zip(*((x if isinstance(x, tuple) else (x,)) for x in (got, want)), strict=True):
                np.testing.assert_array_equal(backend.to_numpy(g), backend.to_numpy(w), f"{name}: {layout}")
