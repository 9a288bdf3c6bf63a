"""What a builder says of itself: its arguments, and its recipe, all that the command line knows of a detector."""

import ast
import dataclasses
import inspect
import pathlib
import pydoc

import pytest
from tiny import torch

import boxops.cli
from boxops import models
from boxops.cli import main
from boxops.cli.model_options import hints
from boxops.data import KINDS
from boxops.models.builders import COMMON, MODELS, SHORT, detector

METHODS = {name: made.__module__.rpartition(".")[2] for name, made in MODELS.items() if "boxops" in made.__module__}
BUILT = list(METHODS)


def on_meta(name, **options):
    with torch.device("meta"):
        return models.create(name, 5, **options)


def settings_of(model):
    return model.settings if hasattr(model, "settings") else model.roi_heads.settings


@pytest.mark.parametrize("name", BUILT)
def test_arguments(name):
    """All that the builder takes, as values that it has if nothing is given."""
    parameters = inspect.signature(MODELS[name]).parameters
    assert (*parameters,)[:4] == COMMON
    assert all(p.kind is p.KEYWORD_ONLY for p in [*parameters.values()][1:])
    told = pydoc.plain(pydoc.render_doc(MODELS[name]))
    assert all(f"{key}: " in told and f" = {p.default!r}" in told for key, p in parameters.items())
    assert getattr(models, name).__doc__.startswith(inspect.unwrap(MODELS[name]).__doc__)


def test_arguments_on_the_site():
    griffe = pytest.importorskip("griffe")
    root = pathlib.Path(__file__).parents[2]
    extensions = griffe.load_extensions(root / "docs" / "docstrings.py")
    shown = griffe.load("boxops.models.ssd", search_paths=[root], extensions=extensions)["ssd300_mobilenet_v2"]
    parameters = inspect.signature(models.ssd300_mobilenet_v2).parameters
    assert {p.name: p.default for p in shown.parameters} == {key: repr(p.default) for key, p in parameters.items()}


@pytest.mark.parametrize("name", SHORT.values())
def test_values_by_default(name):
    settings = settings_of(on_meta(name))
    parameters = inspect.signature(MODELS[name]).parameters
    numbers = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    assert numbers == {key: parameters[key].default for key in numbers}
    given = {key: p.default for key, p in parameters.items() if key not in COMMON}
    assert settings_of(on_meta(name, **given)) == settings


def test_options_of_a_builder():
    """Numbers of the method go to its settings, others to the function; each has a type; unknown ones are refused."""

    @dataclasses.dataclass(frozen=True)
    class Settings:
        one: int = 1
        two: float = 2.0

    def tiny_built(num_classes: int, backbone_weights, settings, three: str = "c"):
        return type("Built", (), {"options": {}, "got": (num_classes, settings, three)})()

    try:
        builder = detector(Settings(two=5.0), training={"lr": 1.0}, needs=("masks",), short="tiny_short")(tiny_built)
        assert models.full_name("tiny_short") == "tiny_built" and builder is MODELS["tiny_built"]
        assert (builder.training, builder.needs) == ({"lr": 1.0}, ("masks",))
        assert (
            str(inspect.signature(builder))
            .partition("fine_tune")[2]
            .startswith(": bool = False, three: str = 'c', one: int = 1, two: float = 5.0)")
        )
        assert hints("tiny_built") == {"three": str, "one": int, "two": float}
        assert builder(3, one=7, three="d").got == (3, Settings(7, 5.0), "d")
        assert builder(3, one=7).config == {"name": "tiny_built", "num_classes": 3, "one": 7}
        with pytest.raises(TypeError, match=r"tiny_built\(\) got an unexpected keyword argument 'four'"):
            builder(3, four=4)
    finally:
        del MODELS["tiny_built"], SHORT["tiny_short"]


def test_any_options_of_a_function_without_settings():
    def tiny_any(num_classes, backbone_weights, **options): ...

    try:
        assert [*inspect.signature(detector()(tiny_any)).parameters] == [*COMMON, "options"]
        assert hints("tiny_any") is None
    finally:
        del MODELS["tiny_any"]


@pytest.mark.parametrize("name", BUILT)
def test_options_of_a_size(name):
    """What --size sets are options of the builder, and the images that the model then has are of that size."""
    options = MODELS[name].sized(256)
    assert options.keys() <= hints(name).keys()
    if name in SHORT.values():
        transform, scales = on_meta(name, **options).transform, options.get("scales")
        assert sorted(scales)[len(scales) // 2] == 256 if scales else transform.min_size[0] == 256


def test_steps_of_a_size():
    """SSD300's are of 300 pixels."""
    assert MODELS["ssd300_vgg16"].sized(300) == {"size": 300}
    assert MODELS["ssd300_vgg16"].sized(512) == {"size": 512, "steps": None}
    assert MODELS["sppnet_vgg16"].sized(344) == {"scales": (240, 288, 344, 432, 600), "max_size": 1200}


def test_no_detector_is_known_to_the_command_line():
    """What depends on a detector is in its recipe. (Kinds of data, such as yolo, are none.)"""
    names = {*BUILT, *SHORT, *METHODS.values()} - {*KINDS}
    assert {"ssd", "rcnn", "faster_rcnn_resnet50_fpn", "yolo_v3"} <= names
    for path in pathlib.Path(boxops.cli.__file__).parent.glob("*.py"):
        words = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not words & names, path.name


def test_the_help_names_all_detectors(capsys):
    """It imports no torch, so that its list is written, and no recipe is asked."""
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    words = capsys.readouterr().out.partition("arguments:")[2].partition("(learn on a CPU)")[0]
    others = [name for name in BUILT if METHODS[name] not in [METHODS[full] for full in SHORT.values()]]
    assert sorted(words.replace(",", " ").split()[1:]) == sorted([*SHORT, *others])
