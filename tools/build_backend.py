"""setuptools' backend; where CUDA kernels are asked for and there is no nvcc, the compiler is a build requirement."""

import cuda12
from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403


def get_requires_for_build_wheel(config_settings=None):
    requirements = build_meta.get_requires_for_build_wheel(config_settings)
    return requirements + list(cuda12.REQUIREMENTS) if cuda12.wanted() else requirements


get_requires_for_build_editable = get_requires_for_build_wheel
