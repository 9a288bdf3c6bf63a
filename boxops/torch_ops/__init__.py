"""The torch binding: operators from the stable-ABI library, the rest of their registration in Python."""

import importlib
import pkgutil
import sys
from pathlib import Path

import torch

from boxops.ops.backend import SIGNATURES

# Where CMakeLists.txt installs it.
_NAMES = {"win32": "boxops_torch.dll", "darwin": "lib/libboxops_torch.dylib"}
LIBRARY = Path(__file__).parent.parent / _NAMES.get(sys.platform, "lib/libboxops_torch.so")
torch.ops.load_library(LIBRARY)

from boxops.torch_ops.common import entry  # noqa: E402

# Each family has a module here of what it registers, and each operator is a function here.
for _family in pkgutil.iter_modules(__path__):
    if _family.name != "torchvision":  # which others load
        importlib.import_module(f"{__name__}.{_family.name}")
globals().update((_op, entry(_op)) for _op in SIGNATURES)

from boxops.torch_ops.sampling import sample_matches  # noqa: E402, F401
