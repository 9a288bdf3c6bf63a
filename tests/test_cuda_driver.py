"""What a user is told where boxops' kernels cannot run: by the emulator, and by the library that is installed."""

import cuda_emulator
import numpy as np
import pytest

