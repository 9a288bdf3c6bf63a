#!/usr/bin/env python3
"""The GPU code in a library: a table of its images. Usage: tools/cuda_images.py boxops/lib/libboxops.so

The section .nv_fatbin is a row of containers, one per source, each a row of images behind headers. NVIDIA does not
document them; this is what fatbinary of CUDA 13.0 writes, and a magic number that is not there is an error.
"""

import struct
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

KINDS = {1: "ptx", 2: "cubin"}
COMPRESSIONS = {0: "none", 0x2000: "LZ4", 0x8000: "Zstandard"}  # Zstandard: drivers from CUDA 12.4 on


class Image(NamedTuple):
    kind: str
    arch: int
    version: (
        str  # of PTX, the language's; of a cubin, the ABI's: 7 by CUDA 12, 8 by CUDA 13 and for 100 and later by both
    )
    compression: str


def section(library: bytes, wanted: bytes) -> bytes:
    """A section of a 64-bit little-endian ELF file; empty if there is none."""
    if library[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"expected a 64-bit ELF file, got one that begins with {library[:6]!r}")
    (table,) = struct.unpack_from("<Q", library, 0x28)
    size, count, names = struct.unpack_from("<3H", library, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", library, table + i * size) for i in range(count)]
    for name, _, _, _, offset, length in headers:
        start = headers[names][4] + name
        if library[start : library.index(b"\0", start)] == wanted:
            return library[offset : offset + length]
    return b""


def images(library: Path) -> list[Image]:
    found, data, at = [], section(library.read_bytes(), b".nv_fatbin"), 0
    while at < len(data):
        magic, _, header, length = struct.unpack_from("<IHHQ", data, at)
        if magic != 0xBA55ED50:
            raise ValueError(f"{library}: expected a container of GPU code at byte {at} of .nv_fatbin, got {magic:#x}")
        at, end = at + header, at + header + length
        while at < end:
            kind, _, header, length = struct.unpack_from("<HHIQ", data, at)
            minor, major, arch = struct.unpack_from("<HHI", data, at + 24)
            (flags,) = struct.unpack_from("<Q", data, at + 40)
            version = str(minor) if kind == 2 else f"{major}.{minor}"
            found.append(Image(KINDS[kind], arch, version, COMPRESSIONS[flags & 0xE000]))
            at += header + length
        at = (end + 7) // 8 * 8
    return found


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for image, count in sorted(Counter(images(Path(sys.argv[1]))).items()):
        print(f"{count:4} x {image.kind:5} {image.arch:4}  version {image.version:4} {image.compression}")
