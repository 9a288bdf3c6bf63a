"""Images of all modes and orientations, and their annotations with them; large ones read smaller."""

import argparse
import io
import json
import struct
import warnings

import data_files  # noqa: F401  (skips without torchvision)
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from tiny import tiny_ssd  # noqa: F401
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms.v2 import functional as F

from boxops.cli.train import add_arguments, prepare
from boxops.data import BadData, open_dataset, segmentation, transforms
from boxops.data.images import factor, image_size, read_image
from boxops.evaluation import _batches
from boxops.training import RunFolder

NOISE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
WIDE = np.linspace(0, 65535, 1200).astype(np.uint16).reshape(30, 40)


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    file.seek(0)
    return file


def turned(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def by_torchvision(file, mode="RGB", **options):
    io_ = pytest.importorskip("torchvision.io")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are to move to torchcodec
        data = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
        return io_.decode_image(data, io_.ImageReadMode[mode], **options).permute(1, 2, 0)


def pixels(file):
    return np.asarray(read_image(file))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "tiff_lzw"])
@pytest.mark.parametrize("orientation", [*range(1, 9), 0, 9, 300])
def test_orientation(kind, orientation):
    if kind.startswith(("TIFF", "tiff")) and not 1 <= orientation <= 8:
        pytest.skip("PIL writes no such TIFF")
    options = {"compression": kind} if kind == "tiff_lzw" else {}
    file = saved(NOISE, "TIFF" if options else kind, exif=turned(orientation), **options)
    expected = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    assert image_size(file) == expected.size == ((30, 40) if 5 <= orientation <= 8 else (40, 30))
    np.testing.assert_array_equal(pixels(file), expected)


def test_orientation_second_opinion():
    file = saved(NOISE, "JPEG", exif=turned(6), quality=95)
    other = by_torchvision(file, apply_exif_orientation=True)
    assert np.abs(pixels(file) - other.numpy().astype(int)).max() <= 2  # decoders round differently


def test_broken_exif_is_none():
    file = saved(NOISE, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xffrubbish")
    assert image_size(file) == (40, 30) and pixels(file).shape == (30, 40, 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits(kind):
    expected = np.repeat(WIDE[..., None] // 256, 3, 2)
    np.testing.assert_array_equal(pixels(saved(WIDE, kind)), expected)
    ours = F.to_dtype(torch.from_numpy(WIDE), torch.uint8, scale=True)
    np.testing.assert_array_equal(pixels(saved(WIDE, kind))[..., 0], ours)


def test_16_bits_second_opinion():
    other = F.to_dtype(by_torchvision(saved(WIDE), "GRAY"), torch.uint8, scale=True)
    np.testing.assert_array_equal(pixels(saved(WIDE))[..., :1], other)


def test_of_12_bits_in_16_is_said_to_be_dark():
    with pytest.warns(UserWarning, match=r"no value above 4095, and is almost black.* scale it to 0\.\.65535"):
        assert pixels(saved(WIDE >> 4)).max() == 15


def test_12_bits_of_their_own():
    a, b = (WIDE >> 4).reshape(-1, 2).astype(int).T
    packed = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], -1).astype(np.uint8).tobytes()
    tags = {256: 40, 257: 30, 258: 12, 259: 1, 262: 1, 273: 122, 277: 1, 278: 30, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    tiff = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + packed
    np.testing.assert_array_equal(pixels(io.BytesIO(tiff))[..., 0], WIDE // 256)
    pgm = b"P5 40 30 4095\n" + (WIDE >> 4).astype(">u2").tobytes()
    np.testing.assert_allclose(pixels(io.BytesIO(pgm))[..., 0], WIDE // 256, atol=1)


def test_white_is_0():
    expected = 255 - np.repeat(WIDE[..., None] // 256, 3, 2)
    np.testing.assert_array_equal(pixels(saved(WIDE, "TIFF", tiffinfo={262: 0})), expected)


@pytest.mark.parametrize("scale", [1, 0.5])
def test_floats(scale):
    image = (WIDE / 65535 * scale).astype(np.float32)
    expected = np.repeat(np.round(image * 255)[..., None], 3, 2)
    np.testing.assert_array_equal(pixels(saved(image, "TIFF")), expected)


@pytest.mark.parametrize(("image", "text"), [
    ((WIDE / 256).astype(np.float32), r"floating values in 0..1, got 0 to 255\.996"),
    ((WIDE / -65535).astype(np.float32), r"floating values in 0..1, got -1 to "),
    (np.full((30, 40), np.nan, np.float32), r"floating values in 0..1, got nan"),
    (WIDE.astype(np.int32) * 2, r"integers in 0..65535, got 0 to 131070"),
    (WIDE.astype(np.int32) - 1, r"integers in 0..65535, got -1 to"),
])  # fmt: skip
def test_values_of_no_known_range(image, text):
    with pytest.raises(ValueError, match=text):
        read_image(saved(image, "TIFF"))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16"])
@pytest.mark.filterwarnings("ignore:an image of 16 bits")
def test_modes(mode):
    shown = 0
    for kind in ("PNG", "TIFF", "JPEG", "WEBP", "GIF"):
        try:
            file = saved(Image.new(mode, (40, 30), 255 if mode in ("L", "1") else None), kind)
        except (OSError, ValueError):  # which it cannot hold
            continue
        image, shown = read_image(file), shown + 1
        assert image.mode == "RGB" and image.size == image_size(file) == (40, 30), kind
        if mode in ("1", "L"):
            assert np.asarray(image).min() >= 254
    assert shown


@pytest.mark.filterwarnings("error")
def test_transparency_is_dropped_as_in_torchvision():
    image = Image.fromarray(NOISE).convert("RGBA")
    image.putalpha(Image.fromarray(NOISE[..., 0]))
    np.testing.assert_array_equal(pixels(saved(image)), NOISE)
    np.testing.assert_array_equal(by_torchvision(saved(image)), NOISE)
    palette = Image.fromarray(NOISE).quantize(16)
    np.testing.assert_array_equal(pixels(saved(palette, transparency=bytes(range(16)))), palette.convert("RGB"))


def test_first_of_several():
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        file = saved(
            frames[0], kind, save_all=True, append_images=frames[1:], **{"lossless": True} if kind == "WEBP" else {}
        )
        assert pixels(file)[5, 5].tolist() == [255, 0, 0], kind


def test_size_decodes_nothing(monkeypatch):
    files = [saved(NOISE, kind, exif=turned(6)) for kind in ("JPEG", "PNG", "TIFF", "WEBP")] + [saved(NOISE)]
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert [image_size(file) for file in files] == [(30, 40)] * 4 + [(40, 30)]


def test_too_many_pixels(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    for function in (read_image, image_size):
        with pytest.raises(ValueError, match=r"within PIL.Image.MAX_IMAGE_PIXELS: .*1200 pixels"):
            function(saved(NOISE))


# Annotations follow.

BOX, KEYPOINT = [4, 6, 20, 12], (4, 6)  # the box's pixels are white, the point is its first


def write(folder, orientation, size, kind="jpg", shape=(30, 40), scale=1, segment="polygon"):
    """A COCO set of one image with one white box, as stored, and its annotation."""
    stored = np.zeros((*shape, 3), np.uint8)
    x1, y1, x2, y2 = BOX
    stored[y1:y2, x1:x2] = 255
    big = Image.fromarray(stored).resize((shape[1] * scale, shape[0] * scale), 0)
    folder.mkdir()
    big.save(folder / f"1.{kind}", quality=100, exif=turned(orientation))
    x1, y1, x2, y2 = (scale * edge for edge in BOX)
    polygon = [x1, y1, x2, y1, x2, y2, x1, y2]
    mask = segmentation.encode((np.asarray(big)[..., 0] > 127).astype(np.uint8))
    thing = {"id": 5, "image_id": 1, "category_id": 3, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": 7,
             "segmentation": [polygon] if segment == "polygon" else mask,
             "keypoints": [x1, y1, 2, 0, 0, 0]}  # fmt: skip
    image = {"id": 1, "file_name": f"1.{kind}"} | ({"width": size[0], "height": size[1]} if size else {})
    names = [{"id": 3, "name": "cat", "keypoints": ["nose", "tail"]}]
    (folder / "a.json").write_text(json.dumps({"images": [image], "annotations": [thing], "categories": names}))
    return open_dataset("coco", annotations=folder / "a.json", images=folder, masks=True, keypoints=True)


def check(data, factor=1):
    """Box, mask, keypoint and ground truth lie where the image is white."""
    image, target = data[0]
    white = image[0] > 127
    ys, xs = torch.where(white)
    around = [int(edge) for edge in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)]
    assert target["boxes"].tolist() == [around] and target["boxes"].canvas_size == tuple(image.shape[1:])
    torch.testing.assert_close(target["masks"][0].bool().as_subclass(torch.Tensor), white.as_subclass(torch.Tensor))
    (x, y, seen), nothing = target["keypoints"][0].tolist()
    assert seen == 2 and nothing == [0, 0, 0]
    corner = {around[0], around[2] - 1} if factor == 1 else {around[0], around[2] - 1 / factor}
    assert x in corner and white[int(y), int(x)]
    truth = data.coco()
    (annotation,), (described,) = truth["annotations"], truth["images"]
    full = data.image(0)
    assert (described["width"], described["height"]) == full.size
    x1, y1, width, height = annotation["bbox"]
    assert [x1, y1, x1 + width, y1 + height] == [factor * edge for edge in around]
    mask = segmentation.decode(annotation["segmentation"], full.height, full.width)
    np.testing.assert_array_equal(mask, np.asarray(full)[..., 0] > 127)
    assert annotation["area"] == 7 and annotation["keypoints"][:2] == [factor * x, factor * y]


@pytest.mark.parametrize("segment", ["polygon", "runs"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_annotations_of_the_stored_image_are_turned(tmp_path, orientation, segment):
    data = write(tmp_path / "a", orientation, (40, 30), segment=segment)
    assert data[0][0].shape == (3, 40, 30)
    check(data)


@pytest.mark.parametrize(("orientation", "size"), [(1, (40, 30)), (0, (40, 30)), (1, None), (300, None)])
def test_annotations_of_images_that_are_not_turned(tmp_path, orientation, size):
    check(write(tmp_path / "a", orientation, size))


@pytest.mark.parametrize(("orientation", "size"), [(o, (30, 40)) for o in (5, 6, 7, 8)]
                         + [(o, (40, 30)) for o in (2, 3, 4)] + [(o, None) for o in range(2, 9)])  # fmt: skip
def test_annotations_of_the_upright_image_stay(tmp_path, orientation, size):
    data = write(tmp_path / "a", orientation, size)
    image, target = data[0]
    assert target["boxes"].tolist() == [BOX] and image.shape[1:] == target["masks"].shape[1:]
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "a" / "1.jpg"))
    np.testing.assert_array_equal(image.permute(1, 2, 0), expected)
    assert data.coco()["annotations"][0]["bbox"] == [4, 6, 16, 6]


@pytest.mark.parametrize(("orientation", "size"), [(1, (30, 40)), (3, (30, 40)), (6, (40, 31))])
def test_annotations_of_another_size(tmp_path, orientation, size):
    data = write(tmp_path / "a", orientation, size)
    with pytest.raises(BadData, match=rf"1.jpg: expected an image of {size[0]} x {size[1]}, as annotated, got"):
        data.image(0)
    assert data.coco()["images"][0]["width"] == size[0]


# Large photos.


@pytest.mark.parametrize(("size", "enough", "expected"), [
    ((4000, 3000), None, 1), ((4000, 3000), (800, 1333), 2), ((4000, 3000), (600, float("inf")), 4),
    ((640, 480), (320, 640), 1), ((1280, 960), (320, 640), 2), ((1279, 960), (320, 640), 2),
    ((960, 639), (320, 640), 1),
    ((5000, 100), (320, 640), 4), ((40, 30), (320, 640), 1), ((100000, 100000), (100, 100), 512),
])  # fmt: skip
def test_factor(size, enough, expected):
    assert factor(size, enough) == factor(size[::-1], enough) == expected


@pytest.mark.parametrize("segment", ["polygon", "runs"])
@pytest.mark.parametrize(("kind", "orientation"), [("jpg", 1), ("png", 1), ("jpg", 6), ("png", 8)])
def test_large_images_are_read_smaller(tmp_path, kind, orientation, segment):
    data = write(tmp_path / "a", orientation, (2000, 1500), kind, scale=50, segment=segment)
    data.enough = 200, 300
    image, target = data[0]
    assert sorted(image.shape[1:]) == [375, 500] and target["area"].tolist() == [7]
    check(data, 4)
    full = F.resize(torch.from_numpy(np.array(data.image(0))).permute(2, 0, 1), image.shape[1:], antialias=True)
    assert (full - image.float()).abs().mean() < 1


def test_odd_sizes_and_many_bits(tmp_path):
    for kind, shape in [("JPEG", (61, 83, 3)), ("PNG", (61, 83, 3)), ("PNG", (61, 83)), ("TIFF", (61, 83))]:
        image = np.full(shape, 200, np.uint8) if len(shape) == 3 else np.full(shape, 200 * 256, np.uint16)
        small = read_image(saved(image, kind), (30, 40))
        assert small.size == (42, 31) and np.asarray(small).min() == 200  # 83 / 42 is more than 2: none is lost


def test_small_images_are_the_same(tmp_path):
    data = write(tmp_path / "a", 1, (40, 30))
    before = data[0]
    data.enough = 16, 21
    after = data[0]
    assert torch.equal(before[0], after[0]) and torch.equal(before[1]["boxes"], after[1]["boxes"])


def test_smaller_before_the_transform(tmp_path):
    data = write(tmp_path / "a", 1, (2000, 1500), scale=50)
    data.enough = 200, 300
    data.transform = transforms.train("rcnn", keypoint_flip=[0, 1])
    image, target = data[0]
    assert image.shape == (3, 375, 500) and target["masks"].shape == (1, 375, 500) and len(target["boxes"]) == 1


@pytest.mark.parametrize(("fixed", "name", "expected"), [
    (None, "rcnn", (64, 133)), (None, "ssd", (80, 166.25)),
    ((30, 30), "ssd", (37.5, float("inf"))), ((30, 30), "none", (30, float("inf"))),
])  # fmt: skip
def test_enough_for_a_model(fixed, name, expected):
    resize = GeneralizedRCNNTransform((48, 64), 133, [0.0] * 3, [1.0] * 3, fixed_size=fixed)
    assert transforms.enough(resize, name) == expected
    resize.eval()
    for size in ((400, 300), (300, 400), (1200, 90), (140, 130)):
        wanted = resize([torch.zeros(3, *size)])[0].image_sizes[0]
        smaller = torch.zeros(3, *(-(-side // factor(size, expected)) for side in size))
        assert all(side >= need for side, need in zip(smaller.shape[1:], wanted, strict=True))
        assert resize([smaller])[0].image_sizes[0] == pytest.approx(wanted, abs=1)


def test_batches_of_large_photos_are_evaluated_one_by_one():
    photo, small = (3000, 4000), (480, 640)
    assert list(_batches([small] * 5 + [photo] * 2 + [small], 4)) == [[0, 1, 2, 3], [4], [5], [6], [7]]
    assert list(_batches([(1500, 2000)] * 3, 4)) == [[0, 1], [2]] and list(_batches([], 4)) == []


def test_train_reads_no_more_than_the_model_needs(tmp_path, monkeypatch):
    write(tmp_path / "a", 6, (2000, 1500), scale=50)
    line = ["tiny_ssd", "--data", "coco", "--eval-split", "none", "--augment", "rcnn", "--workers", "0"]
    paths = [f"annotations={tmp_path}/a/a.json", f"images={tmp_path}/a"]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args([*line, *(word for path in paths for word in ("--data-option", path))])
    monkeypatch.chdir(tmp_path)
    trainer = prepare(args, RunFolder(tmp_path / "run"))
    assert trainer.data.enough == (64, float("inf"))
    image, target = trainer.data[0]
    assert image.shape == (3, 125, 94) and target["boxes"].shape == (1, 4)
    trainer.logs.close()
    trainer.folder.close()
