"""Detectors by name, each with its recipe: all that the command line and the studies know of one is declared here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import wraps
from typing import Any, Protocol, cast, get_type_hints

from .common import Detector
from .weights import Weights as Weights
from .weights import address

# Options of a training run, beside those of boxops.training.Options. The small ones were tuned on 2 cores, the large
# ones are torchvision's for 8 GPUs, with a learning rate for as few images as here. AdamW takes steps of one size,
# however small the gradients are: at the new layers' rate a few dozen of them silence much of a pretrained backbone.
SGD: dict[str, Any] = {"batch_size": 4, "optimizer": "sgd", "lr": 5e-3}
ADAMW: dict[str, Any] = {"batch_size": 4, "optimizer": "adamw", "lr": 5e-4, "backbone_lr": 0.2, "channels_last": True}


class Builder(Protocol):
    """Makes a detector; see :data:`BUILDER` for the arguments, ``inspect.signature`` and ``help`` for its own."""

    training: Mapping[str, Any]  # the usual options of a run
    needs: Sequence[str]  # of masks, keypoints, ...: options of the data set
    sized: Callable[[int], dict[str, Any]]  # the options for images of that size: the side, or the shorter one

    def __call__(self, num_classes: int = ..., **options: Any) -> Detector: ...


MODELS: dict[str, Builder] = {}  # by name
SHORT: dict[str, str] = {}  # names in MODELS by short ones: of each method the variant that learns on a CPU
COMMON = ("num_classes", "weights", "backbone_weights", "fine_tune")  # the arguments of every builder
# torchvision's COCO files of the R-CNNs and RetinaNet, from when FrozenBatchNorm2d added nothing to the variance
EPS_0 = ("258fb6c6", "bf2d0c1e", "fc266e95", "eeacb38b")


def detector(
    settings: Any = None,
    *,
    num_classes: int | None = 91,
    short: str | None = None,
    pretrained: Mapping[str, Any] = {},
    pretrained_backbone: Mapping[str, Any] = {},
    training: Mapping[str, Any] = SGD,
    needs: Sequence[str] = (),
) -> Callable[[Callable[..., Detector]], Builder]:
    """Makes a builder of a function ``build(num_classes, backbone_weights, settings, **options)``.

    Args:
        settings: the hyperparameters, a frozen dataclass with this detector's values. The builder takes each of
            them as an option. ``of_size(size)``, if the class has it, gives those that images of another size ask for.
            None: the function is called without.
        num_classes: by default; None: the model says it.
        short: a short name.
        pretrained: the options it takes by default where it is given weights.
        pretrained_backbone: and where those are of the backbone only.
        training: the options that a run has by default.
        needs: options that its data set must have true: "masks", "keypoints", "one_object".
    """
    numbers = [] if settings is None else [field.name for field in fields(settings)]

    def decorate(build: Callable[..., Detector]) -> Builder:
        @wraps(build)
        def builder(
            num_classes: int | None = num_classes,
            *,
            weights: Weights = None,
            backbone_weights: Weights = None,
            fine_tune: bool = False,
            **options: Any,
        ) -> Detector:
            source = address(build.__name__, weights)
            if source is not None:
                backbone_weights = None  # all of them come from the source
                options = {**pretrained, **options}
            elif backbone_weights is not None:
                options = {**pretrained, **pretrained_backbone, **options}
            if options.get("norm") == "frozen" and any(mark in str(source) for mark in EPS_0):
                options["norm"] = "frozen_eps0"
            given = {key: value for key, value in options.items() if key in numbers}
            chosen = [] if settings is None else [replace(settings, **given)]
            rest = {key: value for key, value in options.items() if key not in numbers}
            model = build(num_classes, backbone_weights, *chosen, **rest)
            model.config = {"name": build.__name__, "num_classes": num_classes, **options, **model.options}
            if source is not None:
                model.load(source, fine_tune)
            return model

        def sized(size: int) -> dict[str, Any]:
            if hasattr(settings, "of_size"):
                return settings.of_size(size)  # type: ignore[no-any-return]
            return {"size": size} if "size" in numbers else {"min_size": size, "max_size": 2 * size}

        made = cast(Builder, builder)
        made.training, made.needs, made.sized = training, needs, sized
        made.__signature__ = signature(build, settings, num_classes)  # type: ignore[attr-defined]
        method = f"{type(settings).__module__}.{type(settings).__qualname__}"
        last = "" if settings is None else f" The hyperparameters:\n            see :class:`{method}`."
        made.__doc__ = f"{build.__doc__}\n\n{BUILDER}{last}\n    "
        MODELS[build.__name__] = made
        if short is not None:
            SHORT[short] = build.__name__
        return made

    return decorate


BUILDER = """    Args:
        num_classes: how many classes there are, with the background.
        weights: of the whole model: a file, a URL (see :func:`boxops.models.read`) or, where torchvision has the model,
            its name of them: "DEFAULT", "COCO_V1", a member of its enum.
        backbone_weights: of the backbone alone, trained on ImageNet, given likewise: "DEFAULT", "IMAGENET1K_V1", ...;
            ignored where weights are given.
        fine_tune: load only what fits from weights; heads of another number of classes are initialised anew.
        options: the other arguments of the signature, which shows their defaults; with weights, the defaults are those
            of the weights' training. norm and freeze are of the backbone, see backbones.py."""


def signature(build: Callable[..., Detector], settings: Any, num_classes: int | None) -> inspect.Signature:
    """Of the builder: the arguments that all have, the function's own, and each field of the settings."""
    types, parameters = get_type_hints(build), [*inspect.signature(build).parameters.values()]
    own = parameters[2 if settings is None else 3 :]
    known: list[tuple[str, Any, Any]] = [("weights", None, Weights), ("backbone_weights", None, Weights)]
    known += [("fine_tune", False, bool)]
    known += [(p.name, p.default, types.get(p.name, Any)) for p in own if p.kind is not p.VAR_KEYWORD]
    if settings is not None:
        numbers = get_type_hints(type(settings))
        known += [(field.name, getattr(settings, field.name), numbers[field.name]) for field in fields(settings)]
    count = inspect.Parameter("num_classes", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=num_classes,
                              annotation=int if num_classes is not None else int | None)  # fmt: skip
    by_name = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
               for name, default, kind in known]  # fmt: skip
    rest = [p for p in own if p.kind is p.VAR_KEYWORD]
    return inspect.Signature([count, *by_name, *rest], return_annotation=types.get("return", Detector))
