"""python tests/cuda_emulator counters: counts what representative calls would ask of a GPU.

How to read it: docs/cuda-counters.md. `--update` writes tests/cuda_counters.json, which tests hold the kernels to, and
that page's table of operations.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import subprocess

import cuda_emulator

VARIABLE = "BOXOPS_EMULATOR_COUNTERS"  # names the file that engine/counters.cpp writes
KEPT = pathlib.Path(cuda_emulator.__file__).parent.parent / "cuda_counters.json"
PAGE = KEPT.parent.parent / "docs" / "cuda-counters.md"
HEADER = "| call | operations of the stream |\n|---|---|\n"  # of a table on that page


def places(binary, offsets):
    """For each offset in a binary (function, file:line) of the source, inlined calls not followed."""
    command, addresses = ["addr2line", "-Cf", "-e", binary], "\n".join(map(hex, offsets))
    done = subprocess.run(command, input=addresses, capture_output=True, text=True, check=True)
    found = done.stdout.splitlines()
    lines = [pathlib.Path(place).name.split(" ")[0] for place in found[1::2]]
    return dict(zip(offsets, zip(found[::2], lines, strict=True), strict=True))


def read(file, binary):
    """The operations in a file of engine/counters.cpp, each a dict; launches with their sums over all accesses."""
    operations = [json.loads(line) for line in pathlib.Path(file).read_text().splitlines()]
    launches = [o for o in operations if "kernel" in o]
    sites = [site for launch in launches for site in launch["sites"]]
    # The line of a call, not the one that it returns to.
    found = places(binary, sorted({o["kernel"] for o in launches} | {s["caller"] - 1 for s in sites}))
    for site in sites:
        site["line"] = found[site.pop("caller") - 1][1]
    for launch in launches:
        launch["name"] = short(found[launch.pop("kernel")][0])
        for kind in ("global load", "global store", "global atomic", "shared load", "shared store", "shared atomic"):
            of_kind = [site for site in launch["sites"] if site["kind"] == kind]
            keys = ("requests", "lanes", "sectors", "ideal_sectors", "wavefronts", "same_address")
            launch[kind] = {key: sum(site[key] for site in of_kind) for key in keys}
    return operations


def short(function):
    """`mask_kernel<Upright<float>, 4>` of a kernel's full name."""
    function = re.sub(r"boxops::|cuda::|\(anonymous namespace\)::|^void |\([\w: ]+\)(?=\d)", "", function)
    return function.split("(")[0].replace("> >", ">>")


def ratio(numerator, denominator):
    return numerator / denominator if denominator else 0.0


def total(operations):
    """What a call is held to."""
    launches = [o for o in operations if "sites" in o]
    sites = [launch[f"global {kind}"] for launch in launches for kind in ("load", "store", "atomic")]
    return {
        "operations": sum(o["operations"] for o in operations),
        "sectors_per_request": round(ratio(sum(s["sectors"] for s in sites), sum(s["requests"] for s in sites)), 2),
        "barriers": sum(launch["barriers"] for launch in launches),
        "chain": round(sum(launch["chain"] for launch in launches)),
    }


def with_operations(page, calls):
    """The text of the page with the operations of all calls in its table."""
    before, behind = page.split(HEADER)
    rest = behind[behind.index("\n\n") :]
    return before + HEADER + "\n".join(f"| {name} | {calls[name]['operations']} |" for name in sorted(calls)) + rest


def compiler():
    """Whose code is counted; other compilers' differs."""
    version = subprocess.run(["g++", "-dumpversion"], capture_output=True, text=True, check=True).stdout
    return f"g++ {version.split('.')[0].strip()}"


def count(call, file):
    """The operations of a call."""
    open(file, "w").close()
    call()
    return read(file, cuda_emulator.module().__file__)


def table(name, operations):
    """A row for each launch; `x` stands between requests and what each of them costs."""
    from rich.table import Table

    kinds = collections.Counter()
    for o in operations:
        kinds["kernels" if "sites" in o else o["name"]] += o["operations"]
    title = f"{name}: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items())
    result = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    result.add_column("kernel", no_wrap=True)
    columns = ("blocks", "threads", "loads x\nsectors (ideal)", "stores x\nsectors (ideal)", "shared x\nwavefronts")
    for column in (*columns, "atomics x\nlanes", "barriers", "lanes", "kB\nread", "kB\nwritten", "chain"):
        result.add_column(column, justify="right", no_wrap=True)
    for launch in operations:
        if "sites" in launch:
            result.add_row(*row(launch))
    return result


def row(launch):
    def times(kinds, key, *ideal):
        requests, *sums = (sum(launch[kind][k] for kind in kinds) for k in ("requests", key, *ideal))
        each = [f"{ratio(s, requests):.1f}" for s in sums]
        return f"{requests:,} x {each[0]}" + (f" ({each[1]})" if ideal else "") if requests else ""

    yield launch["name"]
    yield f"{launch['blocks']:,}"
    yield str(launch["threads"])
    for kind in ("global load", "global store"):
        yield times([kind], "sectors", "ideal_sectors")
    yield times(["shared load", "shared store", "shared atomic"], "wavefronts")
    yield times(["global atomic", "shared atomic"], "same_address")
    yield str(launch["barriers"])
    yield f"{ratio(launch['lane_instructions'], launch['instructions']):.1f}"
    yield f"{launch['bytes_read'] / 1000:,.1f}"
    yield f"{launch['bytes_written'] / 1000:,.1f}"
    yield f"{launch['chain']:,.0f}"


def lines(operations, most):
    """The lines of source with the most sectors and wavefronts."""
    sums = collections.defaultdict(collections.Counter)
    for launch in operations:
        for site in launch.get("sites", ()):
            key = launch["name"], site["line"], site["kind"]
            sums[key].update({k: v for k, v in site.items() if isinstance(v, int)})
    costly = sorted(sums.items(), key=lambda item: -item[1]["sectors"] - item[1]["wavefronts"])[:most]
    for (kernel, line, kind), s in costly:
        each = {key: f"{ratio(s[key], s['requests']):.1f}" for key in s}
        cost = f"{each['sectors']} sectors (ideal {each['ideal_sectors']})"
        if kind.startswith("shared"):
            cost = f"{each['wavefronts']} wavefronts"
        yield f"  {line}, {kernel}: {s['requests']:,} {kind} requests of {cost}, {each['lanes']} lanes"


def main(arguments):
    from rich.console import Console

    from cuda_emulator.bench_calls import bench_calls
    from cuda_emulator.calls import CALLS
    from cuda_emulator.large_calls import LARGE

    parser = argparse.ArgumentParser(prog="python tests/cuda_emulator counters", description=__doc__.split("\n")[0])
    parser.add_argument("-k", default="", metavar="TEXT", help="only calls whose names contain TEXT")
    others = parser.add_mutually_exclusive_group()
    others.add_argument("--large", action="store_true", help="the sizes that goals are set for; minutes")
    others.add_argument(
        "--bench", action="store_true", help="the cases of boxops bench, which a GPU is timed by; all take an hour"
    )
    parser.add_argument("--lines", type=int, default=0, metavar="N", help="also the N costliest lines of source")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write everything counted")
    parser.add_argument("--update", action="store_true", help=f"write {KEPT.name}, and the table of {PAGE.name}")
    options = parser.parse_args(arguments)
    chosen = LARGE if options.large else bench_calls() if options.bench else CALLS
    if not any(options.k in name for name in chosen):
        parser.error(f"-k: no call contains {options.k!r}; there are: {'; '.join(chosen)}")
    if options.update and chosen is not CALLS:
        parser.error("--update keeps the calls of --large and --bench out")
    console = Console(width=None if os.isatty(1) else 180)
    counted = {}
    for name, call in chosen.items():
        if options.k not in name:
            continue
        counted[name] = operations = count(call, os.environ[VARIABLE])
        console.print(table(name, operations))
        for line in lines(operations, options.lines):
            console.print(line, highlight=False)
    if options.json:
        options.json.write_text(json.dumps(counted, indent=1))
    if options.update:
        kept = json.loads(KEPT.read_text())["calls"] if options.k else {}
        totals = kept | {name: total(operations) for name, operations in counted.items()}
        KEPT.write_text(json.dumps({"compiler": compiler(), "calls": totals}, indent=1) + "\n")
        PAGE.write_text(with_operations(PAGE.read_text(), totals))
    return 0
