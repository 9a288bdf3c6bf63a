"""The core as a C++ user has it: without Python, far past 2^31, on threads under the sanitizers, and installed."""

import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import boxops

HERE = pathlib.Path(__file__).parent / "cpp"
CSRC = HERE.parent.parent / "csrc"
PAGE = (CSRC.parent / "docs" / "cpp.md").read_text()
# Of the core, what the programs call: the rest would be compiled three times to be left out when it is linked.
CALLED = ("boxes/boxes", "common/copy", "common/isa", "common/sort", "iou/iou", "nms/nms")
SANITIZERS = {  # as fast to compile and to run as it gets, together
    "tsan": ["-O1", "-fsanitize=thread"],
    "asan": ["-Og", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="maps memory as Linux does"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++"),
]


def compile_all(sources, folder, flags):
    """The object files of the sources, compiled as the build does, two at a time."""
    command = ["g++", "-std=c++17", "-ffp-contract=off", f"-I{CSRC / 'include'}", f"-I{CSRC / 'core'}", *flags, "-c"]
    objects, running = [], []
    for source in sources:
        objects.append(folder / f"{source.stem}.o")
        running.append(subprocess.Popen([*command, source, "-o", objects[-1]], stderr=subprocess.PIPE, text=True))
        if len(running) == 2 or source is sources[-1]:
            for compiler in running:
                errors = compiler.communicate(timeout=300)[1]
                assert compiler.returncode == 0, errors
            running = []
    return objects


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """program(name, flags): the path of tests/cpp/<name>.cpp, built with the CPU sources that it calls."""

    @functools.cache
    def build(name, flags):
        folder = tmp_path_factory.mktemp(name)
        sources = [*(CSRC / "core" / f"{source}_cpu.cpp" for source in CALLED), HERE / f"{name}.cpp"]
        objects = compile_all(sources, folder, flags)
        subprocess.run(["g++", *flags, *objects, "-pthread", "-o", folder / name], check=True, timeout=120)
        return folder / name

    return build


def run(path, *arguments, **environment):
    return subprocess.run(
        [path, *arguments], capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )


def test_without_python_and_past_32_bits(program):
    done = run(program("index_test", ("-O0",)))
    if done.returncode == 77:
        pytest.skip(done.stdout)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout + done.stderr


def test_ops_by_name(tmp_path):
    """On the package's library; what it keeps to itself of ops/ is compiled for the program's own op."""
    library = pathlib.Path(boxops.__file__).parent / "lib"
    if not (library / "libboxops.so").exists():
        pytest.skip("the emulator has no libboxops")
    own = [CSRC / source for source in ("ops/call.cpp", "ops/check.cpp", "core/common/isa_cpu.cpp")]
    objects = compile_all([HERE / "registry_test.cpp", *own], tmp_path, ["-O0", f"-I{CSRC}"])
    link = ["-L", library, "-lboxops", f"-Wl,-rpath,{library}", "-o", tmp_path / "registry_test"]
    subprocess.run(["g++", *objects, *link], check=True, timeout=120)
    done = run(tmp_path / "registry_test")
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout + done.stderr


def test_page_shows_what_is_tried():
    code = re.search(r"bind all ops at once.*?```cpp\n(.*?)```", PAGE, re.DOTALL)[1]
    assert code in (HERE / "registry_test.cpp").read_text()


@pytest.mark.parametrize(("language", "standard"), [("c++", "c++17"), ("c", "c99")])
def test_first_code_of_the_page_compiles(language, standard, tmp_path):
    code = re.search(rf"```{language.replace('+', 'p')}\n(.*?)```", PAGE, re.DOTALL)[1]
    includes = "".join(line for line in code.splitlines(True) if line.startswith("#"))
    arguments = "int64_t n, float* corners, float* scores, float* confidences, int64_t* keep"
    source = tmp_path / "page"
    source.write_text(f"{includes}\nvoid page({arguments}) {{ {{\n{code.removeprefix(includes)}}} }}")
    command = ["g++", "-x", language, f"-std={standard}", "-fsyntax-only", f"-I{CSRC / 'include'}"]
    headers = ["-include", "stdio.h", "-include", "boxops/boxops_c.h"]
    subprocess.run([*command, *headers, source], check=True, timeout=120)


def sanitized(program, variant, *arguments):
    path = program("tsan_test", ("-g1", *SANITIZERS[variant]))
    done = run(path, *arguments, TSAN_OPTIONS="halt_on_error=1", UBSAN_OPTIONS="print_stacktrace=1")
    if "unexpected memory mapping" in done.stderr:  # this kernel scatters memory more widely than libtsan knows
        if not arguments:
            pytest.skip("ThreadSanitizer cannot run under this kernel's address randomisation")
        return None
    return done


@pytest.mark.parametrize("variant", SANITIZERS)
def test_four_threads_under_sanitizers(program, variant):
    done = sanitized(program, variant)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", ""), done.stdout + done.stderr[:5000]


@pytest.mark.parametrize(
    ("variant", "fault", "words"),
    [
        ("tsan", "race", "ThreadSanitizer: data race"),
        ("asan", "overflow", "AddressSanitizer: heap-buffer-overflow"),
        ("asan", "signed", "runtime error: signed integer overflow"),
    ],
)
def test_planted_faults_are_reported(program, variant, fault, words):
    done = sanitized(program, variant, fault)
    if done is None:
        pytest.skip("ThreadSanitizer cannot run under this kernel's address randomisation")
    assert done.returncode != 0
    assert words in done.stderr, done.stderr[:5000]


def test_installed_library(tmp_path):
    """cmake --install, then find_package(boxops) from another project."""
    if shutil.which("cmake") is None:
        pytest.skip("there is no cmake")

    def cmake(*arguments):
        done = subprocess.run(["cmake", *arguments], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr

    library, prefix, build = tmp_path / "library", tmp_path / "prefix", tmp_path / "consumer"
    # What is tried is the package, not its speed.
    cmake("-S", CSRC.parent, "-B", library, "-DBOXOPS_CUDA=0", "-DCMAKE_BUILD_TYPE=Debug")
    cmake("--build", library, "-j", "2")
    cmake("--install", library, "--prefix", prefix)
    assert (prefix / "lib" / "libboxops.so").resolve().name == f"libboxops.so.{boxops.__version__}"
    cmake("-S", CSRC.parent / "examples" / "cpp", "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}")
    cmake("--build", build)
    done = run(build / "kernels")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"boxops {boxops.__version__}: iou 0.5, kept 2: 1 2\n"
