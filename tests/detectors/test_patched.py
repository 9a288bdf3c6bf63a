"""python -m boxops.patched: a program runs as Python itself would run it, under the patch."""

import os
import subprocess
import sys

import pytest
import scenes  # noqa: F401  # skips without torchvision

PROGRAM = """\
import pickle, sys
from torchvision.ops import box_iou
import beside

class Own:
    pass

def fail():
    raise KeyError("of the program")

if __name__ == "__main__":
    assert type(pickle.loads(pickle.dumps(Own()))) is Own
    print(sys.argv, __name__, __package__, "boxops" in repr(box_iou.__code__.co_names + box_iou.__code__.co_consts))
    if sys.argv[1:] == ["exit"]:
        sys.exit(3)
    if sys.argv[1:] == ["fail"]:
        fail()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("programs")
    (made / "package").mkdir()
    (made / "program.py").write_text(PROGRAM)
    (made / "beside.py").write_text("")
    (made / "package" / "__main__.py").write_text("import sys; print(sys.argv[1:], __name__, __package__)")
    (made / "package" / "__init__.py").write_text("")
    return made


def python(*arguments, cwd):
    run = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300)
    return run.returncode, run.stdout, run.stderr


def test_script(folder):
    """Its name, arguments, neighbours, exit code and traceback; only the patch differs."""
    script = os.path.join(folder.name, "program.py")
    code, output, error = python(script, "fail", cwd=folder.parent)
    result = python("-m", "boxops.patched", script, "fail", cwd=folder.parent)
    assert code == 1 and "False" in output and "of the program" in error
    assert result == (code, output.replace("False", "True"), error)
    assert python("-m", "boxops.patched", script, "exit", cwd=folder.parent)[0] == 3


def test_module_and_mistakes(folder):
    assert python("-m", "boxops.patched", "-m", "package", "x", cwd=folder)[:2] == (0, "['x'] __main__ package\n")
    code, _, error = python("-m", "boxops.patched", "-m", "no_such_module", cwd=folder)
    assert code == 1 and "No module named no_such_module" in error
    code, _, error = python("-m", "boxops.patched", "no_such_file.py", cwd=folder)
    assert code == 2 and "can't open file" in error
    code, _, error = python("-m", "boxops.patched", cwd=folder)
    assert code == 2 and "usage" in error
