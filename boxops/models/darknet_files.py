"""darknet's files: a .cfg as a plain list of sections, a .weights as its header and its numbers, bit for bit.

Redmon, "Darknet: Open Source Neural Networks in C", 2013-2018; where a rule is its own, the function is named.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .checkpoint import FOREIGN, TORCH

LARGEST = 2**31 - 1  # darknet counts in int
INTEGER, NUMBER = (
    re.compile(r"[+-]?\d{1,18}", re.ASCII),
    re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.I),
)

# The options of each section, as parser.c reads them; those behind the bar matter in training only. One that is not
# here would change what the network computes, or is misspelt.
KNOWN = {
    "net": "width height channels | batch subdivisions learning_rate momentum decay time_steps notruth random adam B1"
    " B2 eps inputs max_crop min_crop max_ratio min_ratio center clip angle aspect saturation exposure hue policy"
    " burn_in power step scale steps scales gamma max_batches",
    "convolutional": "batch_normalize filters size stride pad padding groups activation",
    "local": "filters size stride pad activation",
    "connected": "batch_normalize output activation",
    "maxpool": "size stride padding",
    "avgpool": "",
    "reorg": "stride reverse",
    "upsample": "stride scale",
    "route": "layers groups group_id",
    "shortcut": "from activation alpha beta",
    "crop": "crop_height crop_width noadjust | flip angle saturation exposure shift",
    "dropout": "probability",
    "softmax": "groups temperature",
    "cost": "| type scale ratio noobj thresh",
    "yolo": "classes num mask anchors | max jitter ignore_thresh truth_thresh random",
    "region": "classes num coords anchors softmax background | max jitter rescore thresh classfix absolute random"
    " bias_match coord_scale object_scale noobject_scale mask_scale class_scale log sqrt",
    "detection": "classes num coords side softmax sqrt | max rescore coord_scale forced object_scale noobject_scale"
    " class_scale jitter random reorg",
}
SHORT = {"network": "net", "conv": "convolutional", "conn": "connected", "max": "maxpool", "avg": "avgpool",
         "soft": "softmax"}  # fmt: skip


@dataclass(frozen=True)
class Section:
    """A section of a cfg: its options as texts without spaces, and where they stand."""

    kind: str  # of KNOWN
    place: str  # file:line
    options: dict[str, str]
    places: dict[str, str]

    @property
    def lines(self) -> list[str]:
        return [f"[{self.kind}]", *(f"{name}={value}" for name, value in self.options.items())]

    def error(self, expected: str, got: object, option: str | None = None) -> ValueError:
        return ValueError(f"{self.places.get(option or '', self.place)}: [{self.kind}] expected {expected}, got {got}")

    def integer(self, name: str, default: int | None = None, least: int = 1, most: int = LARGEST) -> int:
        """Raises ValueError: it is missing without a default, no integer, or out of its range."""
        text = self.options.get(name)
        if text is None and default is not None:
            return default
        if text is None or not INTEGER.fullmatch(text) or not least <= int(text) <= most:
            limits = f">= {least}" if most == LARGEST else f"of {least} to {most}"
            raise self.error(f"{name} as an integer {limits}", "none" if text is None else repr(text), name)
        return int(text)

    def flag(self, name: str) -> bool:
        return self.integer(name, 0, 0, 1) == 1

    def number(self, name: str, default: float) -> float:
        text = self.options.get(name)
        if text is None:
            return default
        return self._numbers(name, [text])[0]

    def numbers(self, name: str) -> list[float]:
        """[] where the option is missing; a comma may end the list."""
        text = self.options.get(name, "")
        return self._numbers(name, text.removesuffix(",").split(",")) if text else []

    def integers(self, name: str) -> list[int]:
        numbers = self.numbers(name)
        if any(number != int(number) or abs(number) > LARGEST for number in numbers):
            raise self.error(f"{name} as integers", repr(self.options[name]), name)
        return [int(number) for number in numbers]

    def _numbers(self, name: str, texts: Sequence[str]) -> list[float]:
        for text in texts:
            if not NUMBER.fullmatch(text) or abs(float(text)) > 1e30:
                raise self.error(f"{name} as numbers", repr(self.options[name]), name)
        return [float(text) for text in texts]


def read_cfg(file: str | Path) -> list[Section]:
    """The sections of a cfg, [net] first.

    Lines are ``[section]``, ``option = value``, comments that begin with # or ;, or blank; spaces mean nothing
    (read_cfg and strip of darknet).

    Raises:
        ValueError: the file is no text, or a line is none of these, a section or an option is unknown, or one is given
            twice; with the line's number.
        OSError: the file cannot be read.
    """
    try:
        text = Path(file).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: expected a cfg, a text in UTF-8, got bytes that are none: {error}") from error
    return parse_cfg(text.split("\n"), file)


def parse_cfg(lines: Sequence[str], file: str | Path) -> list[Section]:
    """:func:`read_cfg` of lines that errors say to be of that file."""
    sections: list[Section] = []
    for number, line in enumerate(lines, 1):
        place, line = f"{file}:{number}", "".join(line.split())
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            kind = SHORT.get(line[1:-1], line[1:-1])
            if line[-1] != "]" or kind not in KNOWN:
                raise ValueError(f"{place}: expected a section among [{'], ['.join(KNOWN)}], got {line[:60]!r}")
            if (kind == "net") != (not sections):
                raise ValueError(f"{place}: expected [net] as the first section and only there, got [{kind}]")
            sections.append(Section(kind, place, {}, {}))
            continue
        name, equals, value = line.partition("=")
        if not sections or not equals or not name or not value:
            raise ValueError(f"{place}: expected {'option = value' if sections else '[net]'}, got {line[:60]!r}")
        current = sections[-1]
        if name not in KNOWN[current.kind].split():
            known = KNOWN[current.kind].replace("| ", "").replace(" ", ", ") or "none"
            raise ValueError(f"{place}: [{current.kind}] expected an option among {known}; got {name[:60]!r}")
        if name in current.options:
            raise current.error(f"{name} once", f"it again in {place}", name)
        current.options[name], current.places[name] = value, place
    if len(sections) < 2:
        raise ValueError(f"{file}: expected [net] and layers, got {len(sections)} sections")
    return sections


@dataclass(frozen=True)
class Header:
    """What precedes the numbers of a .weights file (load_weights_upto of darknet)."""

    major: int = 0
    minor: int = 2
    revision: int = 0
    seen: int = 0  # images, so far in training

    @property
    def wide(self) -> bool:
        """Whether seen has 64 bits: since version 0.2."""
        return self.major * 10 + self.minor >= 2 and self.major < 1000 and self.minor < 1000

    @property
    def transposed(self) -> bool:
        """Whether connected layers lie as [inputs, outputs]: before there were versions, three floats stood there."""
        return self.major > 1000 or self.minor > 1000

    @property
    def format(self) -> str:
        return "<iiiQ" if self.wide else "<iiiI"


def read_weights(file: str | Path) -> tuple[Header, np.ndarray]:
    """The header and the numbers of a .weights file, float32 in its order.

    Raises:
        ValueError: it is cut off within its header or a number, or is known to be another format's.
        OSError: it cannot be read.
    """
    content = Path(file).read_bytes()
    marks = {TORCH: "a checkpoint of torch"} | (FOREIGN if content[:64].isascii() else {})
    for mark, what in marks.items():
        if content.startswith(mark):
            raise ValueError(f"{file}: expected darknet's weights, got {what}")
    try:
        header = Header(*struct.unpack_from("<iii", content))
        header = Header(*struct.unpack_from(header.format, content))
    except struct.error:
        raise ValueError(f"{file}: expected a header of 16 or 20 bytes, got {len(content)} bytes in all") from None
    size = len(content) - struct.calcsize(header.format)
    if size % 4:
        raise ValueError(f"{file}: expected numbers of 4 bytes after the header, got {size} bytes: it was cut off")
    return header, np.frombuffer(content, "<f4", offset=struct.calcsize(header.format)).astype(np.float32)


def write_weights(file: str | Path, header: Header, parts: Sequence[np.ndarray]) -> None:
    """Writes float32 arrays one after another behind the header; another file of the name is replaced at the end."""
    from boxops.training.checkpoint import atomic

    with atomic(Path(file)) as out:
        out.write(struct.pack(header.format, header.major, header.minor, header.revision, header.seen))
        for part in parts:
            out.write(np.ascontiguousarray(part, "<f4").tobytes())
