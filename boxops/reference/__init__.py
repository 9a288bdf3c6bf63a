"""The contract in code: every op of boxops in plain NumPy, slow and obvious.

Each function bears the name and the arguments of the public one and defines its result; the kernels
must give the same indices, and the same measures to the bit.
Every step is rounded to the compute type: float64 for float64 and integers of 32 bits or more, else float32.
"""

import importlib
import inspect
import pkgutil

for _family in pkgutil.iter_modules(__path__):
    _module = importlib.import_module(f"{__name__}.{_family.name}")
    if _family.name != "common":
        globals().update(
            (_name, _function)
            for _name, _function in inspect.getmembers(_module, inspect.isfunction)
            if _function.__module__ == _module.__name__ and not _name.startswith("_")
        )
