"""What keeps the house in order: who may include what, and that no op lacks its parts."""

import ast
import functools
import inspect
import pathlib
import re
import subprocess
import sys
from graphlib import TopologicalSorter

import backends
import cases
import numpy as np
import pytest
from test_machine import output_of

import boxops
from boxops import reference

ROOT = pathlib.Path(__file__).parent.parent
PUBLIC = sorted(name for name in boxops.__all__ if inspect.isroutine(getattr(boxops, name)))
FOREIGN = re.compile(r'#\s*include\s*[<"](torch|ATen|c10|pybind11|Python\.h|numpy|frameobject\.h)', re.IGNORECASE)


@pytest.mark.parametrize("folder", ["csrc/core", "csrc/include", "csrc/ops"])
def test_no_framework_in_the_core(folder):
    sources = [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    assert len(sources) > 3, f"no sources under {folder}"
    foreign = [str(path.relative_to(ROOT)) for path in sources if FOREIGN.search(path.read_text())]
    assert not foreign


@pytest.mark.parametrize(("pattern", "allowed"), [("<torch/", set()), ("<pybind11/", {"csrc/pybind"})])
def test_frameworks_stay_in_their_folder(pattern, allowed):
    """What boxops needs of torch is declared in torch_ops/shim.h."""
    include = re.compile(rf"#\s*include\s*{pattern}")
    users = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*")
             if path.is_file() and include.search(path.read_text())}  # fmt: skip
    assert users == allowed


@pytest.mark.parametrize("header", sorted((ROOT / "csrc" / "include").rglob("*.h")), ids=lambda path: path.name)
def test_installed_headers_need_no_other(header):
    includes = re.findall(r'#\s*include\s*([<"].*[>"])', header.read_text())
    known = {f"<boxops/{path.name}>" for path in header.parent.glob("*.h")}
    assert header.parent.name == "boxops"
    assert [name for name in includes if name not in known and not re.fullmatch(r"<\w+(\.h)?>", name)] == []


def test_one_copy_of_the_geometry():
    """Box arithmetic is written in common/geometry.h only; the core's headers say what it computes."""
    pattern = re.compile(r"\barea\w* *\+ *\w*\.?area\w* *\)? *- *inter")
    code = {path.name: re.sub("//.*", "", path.read_text()) for path in (ROOT / "csrc").rglob("*") if path.is_file()}
    assert {name for name, text in code.items() if pattern.search(text)} == {"geometry.h"}


def test_import_brings_no_framework(tmp_path):
    code = (
        "import sys, boxops; print(sorted({'torch', 'torchvision', 'rich', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"


def imported(path, name, modules):
    """The modules that a file imports when it is imported, or says that it does to a type checker."""
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    found, rest = set(), ast.parse(path.read_text()).body
    while rest:
        node = rest.pop()
        if isinstance(node, ast.If | ast.Try | ast.With):
            rest += ast.iter_child_nodes(node)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] + "." if node.level else ""
            source = f"{above}{node.module or ''}".rstrip(".")
            found |= {full if (full := f"{source}.{alias.name}") in modules else source for alias in node.names}
    return found & modules.keys()


def test_no_import_circle():
    """Whatever a module needs can be imported before it, its types too. (An import within a function is another thing:
    what is seldom needed, or loads torch.)"""
    files = [*(ROOT / "boxops").rglob("*.py*"), *(ROOT / "benchmarks").rglob("*.py")]
    places = [(path, path.relative_to(ROOT).with_suffix("").parts) for path in files if path.suffix in (".py", ".pyi")]
    places = [(path, parts if parts[0] == "boxops" else ("boxops", *parts)) for path, parts in places]
    modules = {".".join(parts).removesuffix(".__init__"): path for path, parts in places}
    assert len(modules) > 150
    TopologicalSorter({name: imported(path, name, modules) for name, path in modules.items()}).prepare()  # CycleError


def test_every_op_is_public():
    assert set(cases.CASES) <= set(PUBLIC)


@pytest.mark.parametrize("op", PUBLIC)
def test_op_has_a_reference_with_its_arguments(op):
    public, specified = (inspect.signature(getattr(module, op)).parameters for module in (boxops, reference))
    assert [(p.name, p.kind, p.default) for p in public.values()] == [
        (p.name, p.kind, p.default) for p in specified.values()
    ]


@pytest.mark.parametrize("op", PUBLIC)
def test_op_has_cases(op):
    names = [case.name for case in cases.CASES[op]]
    assert len(names) == len(set(names)), "two cases of one name"
    dtypes = {dtype for case in cases.CASES[op] for dtype in case.dtypes}
    assert dtypes in ({*cases.FLOATS, *cases.INTEGERS}, {*cases.FLOATS})


@functools.cache
def parts_of_the_cases():
    """By name the ops that the part is about: without them, tests of all ops pass an op over or know no arguments."""
    far, wrong = cases.gathered("far", np.random.default_rng(0)), cases.gathered("WRONG_VALUES")
    return {"WRONG_VALUES": {op for op, *_ in wrong}, "calls": {*cases.calls("cpu")}, "far": {*far}}


@pytest.mark.parametrize("op", PUBLIC)
def test_op_has_the_other_parts_of_the_cases(op):
    backends.TORCH.require()
    takes_integers = any({*case.dtypes} & {*cases.INTEGERS} for case in cases.CASES[op])
    lacking = [
        name for name, ops in parts_of_the_cases().items() if op not in ops and (name != "far" or takes_integers)
    ]
    assert not lacking, f"expected {op} in {lacking} of its module in tests/cases"


@pytest.mark.parametrize("op", PUBLIC)
def test_op_has_a_docstring(op):
    """With its own arguments, result and errors, or a link to the op that has the same."""
    text = inspect.getdoc(getattr(boxops, op)) or ""
    linked = "".join(inspect.getdoc(getattr(boxops, name)) for name in re.findall(r":func:`(\w+)`", text))
    for word in (*inspect.signature(getattr(boxops, op)).parameters, "Args:", "Returns:", "Raises:"):
        assert word in text + linked, f"the docstring of {op} lacks {word}"


def test_every_torch_operator_has_a_fake_kernel():
    backends.TORCH.require()
    import torch

    boxops.box_area(torch.zeros(1, 4))  # the first tensor loads the operators
    names = {name.split(".")[0] for name in torch._C._dispatch_get_all_op_names() if name.startswith("boxops::")}
    assert names
    without = [name for name in names if not torch._library.simple_registry.singleton.find(name).fake_impl.kernel]
    assert not without, f"expected boxops/torch_ops to register_fake {without}"


def test_typed():
    assert (pathlib.Path(boxops.__file__).parent / "py.typed").is_file()


def test_the_readme_prints_what_it_says():
    """What its first snippet prints stands behind each line."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    said = [line.partition("  # ")[2].partition(": ")[0] for line in code.splitlines() if line.startswith("print")]
    assert said and output_of(code).splitlines() == said
