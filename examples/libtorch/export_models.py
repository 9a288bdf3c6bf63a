"""Writes scripted.pt (TorchScript) and packaged.pt2 (torch.export, compiled by AOTInductor) into a folder."""

import pathlib
import sys

import torch

import boxops.torch_ops  # noqa: F401  (registers the operators)


class BestBoxes(torch.nn.Module):
    """The two boxes that non-maximum suppression leaves on top, [2, 4]."""

    def forward(self, boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        indices, _ = torch.ops.boxops.nms_padded(boxes[None], scores[None], 0.4, 2, None, None)
        return boxes[indices[0]]


def main(folder: pathlib.Path) -> None:
    example = torch.rand(3, 4), torch.rand(3)
    torch.jit.script(BestBoxes()).save(folder / "scripted.pt")
    torch._inductor.aoti_compile_and_package(
        torch.export.export(BestBoxes(), example), package_path=str(folder / "packaged.pt2")
    )


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
