"""What can be set about a training run: the flags of `boxops train`, and their values by default."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


def _option(default: Any, text: str, choices: tuple[str, ...] = (), by_model: bool = False) -> Any:
    """by_model: builders of models say what is usual, see boxops.models.builders.detector."""
    return field(default=default, metadata={"help": text, "choices": choices, "by_model": by_model})


@dataclass
class Options:
    """Options of a run. A step is one update of the weights, by accumulate * processes * batch_size images."""

    epochs: int = _option(12, "passes through the data", by_model=True)
    steps: int | None = _option(None, "stop after so many steps, whatever epochs says")
    samples: int | None = _option(None, "images of an epoch (default: as many as there are)")
    batch_size: int = _option(8, "images at a time, in each process", by_model=True)
    accumulate: int = _option(1, "batches whose gradients are summed for one step")
    optimizer: str = _option("sgd", "sgd has Nesterov momentum 0.9", ("sgd", "adamw"), by_model=True)
    lr: float = _option(0.01, "learning rate", by_model=True)
    backbone_lr: float = _option(1.0, "factor of the pretrained network's learning rate; 1 where no weights are given",
                                 by_model=True)  # fmt: skip
    weight_decay: float = _option(5e-4, "not on biases and norms", by_model=True)
    warmup: int | None = _option(None, "steps in which the learning rate rises to its full value (default: a tenth of "
                                       "the run's, at most 1000)")  # fmt: skip
    schedule: str = _option("cosine", "how the learning rate falls", ("cosine", "multistep", "constant"))
    clip: float = _option(10.0, "greatest norm of the gradients; 0: any", by_model=True)
    amp: str = _option("none", "mixed precision", ("none", "bf16", "fp16"))
    ema: float = _option(0.0, "decay of a moving average of the weights, which is what is saved then; 0: none")
    seed: int = _option(0, "of the model's weights, the order of images and their augmentation")
    workers: int = _option(2, "processes that load images; 0: none besides the main one")
    device: str = _option("auto", "auto, cpu, cuda or cuda:1; auto is a GPU if there is one")
    sync_bn: bool = _option(False, "batch norms see the images of all processes")
    channels_last: bool = _option(False, "weights and features as NHWC in memory", by_model=True)
    find_unused: bool = _option(False, "with several processes, for losses that leave parameters out")
    eval_every: int = _option(1, "epochs between evaluations; 0: only at the end", by_model=True)
    checkpoint_steps: int = _option(0, "save each so many steps too; 0: at the end of each epoch")
    checkpoint_seconds: float = _option(300.0, "save when so many seconds went by, too")
    bad_steps: int = _option(10, "stop after so many steps in a row without finite losses")
    pictures: int = _option(4, "held-out images to draw detections on after each evaluation")
    log_seconds: float = _option(10.0, "between lines of progress where there is no terminal")

    def __post_init__(self) -> None:
        for option in fields(self):
            value, choices = getattr(self, option.name), option.metadata["choices"]
            if choices and value not in choices:
                raise ValueError(f"{option.name}: expected one of {', '.join(choices)}, got {value!r}")
            if isinstance(value, int | float) and not 0 <= value < float("inf"):
                raise ValueError(f"{option.name}: expected a number of 0 or more, got {value}")
        for name in ("epochs", "steps", "samples", "batch_size", "accumulate"):
            if getattr(self, name) == 0:
                raise ValueError(f"{name}: expected 1 or more, got 0")
        if self.ema >= 1:
            raise ValueError(f"ema: expected a decay below 1, got {self.ema}")
