import pytest
from tiny import torch

from boxops import draw
from boxops.draw import colour, draw_detections, grid


def detections(**more):
    boxes = torch.tensor([[100.0, 200, 300, 400], [400, 100, 500, 300]])
    return {"boxes": boxes, "labels": torch.tensor([1, 9]), "scores": torch.tensor([0.9, 0.4]), **more}


def test_boxes_over_the_threshold_in_the_colours_of_their_classes():
    image = torch.full((3, 640, 640), 128, dtype=torch.uint8)
    low, high = (draw_detections(image, detections(), ["cat"], threshold=t) for t in (0.3, 0.5))
    assert low.size == (640, 640)
    assert low.getpixel((101, 380)) == high.getpixel((101, 380)) == colour(1)
    assert low.getpixel((401, 280)) == colour(9)
    assert high.getpixel((401, 280)) == (128,) * 3
    assert image.unique().tolist() == [128]


def test_masks_and_keypoints():
    masks = torch.zeros(2, 1, 640, 640)
    masks[0, :, 220:380, 120:280] = 0.9
    keypoints = torch.tensor([[[200.0, 300, 1], [250, 300, 0]]]).expand(2, 2, 3)
    drawn = draw_detections(torch.zeros(3, 640, 640), detections(masks=masks, keypoints=keypoints), threshold=0)
    assert drawn.getpixel((200, 300)) == (255,) * 3
    assert drawn.getpixel((250, 300)) == drawn.getpixel((140, 300)) != (0, 0, 0)
    assert drawn.getpixel((110, 390)) == (0, 0, 0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_small_images_are_enlarged_and_nothing_is_drawn_of_nothing(dtype):
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    picture = draw_detections(torch.zeros(3, 32, 64, dtype=dtype), {**nothing, "masks": torch.zeros(0, 1, 32, 64)})
    assert picture.size == (640, 320)
    assert picture.getcolors() == [(640 * 320, (0, 0, 0))]
    titled = draw_detections(torch.zeros(3, 32, 64, dtype=dtype), nothing, title="nothing")
    assert titled.height > picture.height
    assert grid([[picture, titled], [picture]], gap=4).size == (1284, titled.height + 4 + 320)


def test_colours_differ():
    assert len({colour(i) for i in range(1, 91)}) == 90


def test_a_name_is_drawn_in_the_fonts_that_have_its_script_or_as_its_number(monkeypatch):
    """Private characters are in no font; the warning comes once, whatever the number of pictures."""
    monkeypatch.setattr(draw, "_told", [])
    names, plain = ["\ue123\ue124", "cat"], ["1", "cat"]
    found = detections(labels=torch.tensor([1, 2]))
    with pytest.warns(UserWarning, match="no font of this system") as told:
        drawn = [draw_detections(torch.zeros(3, 640, 640), found, names, 0) for _ in range(2)]
    assert len(told) == 1
    expected = draw_detections(torch.zeros(3, 640, 640), found, plain, 0)
    assert drawn[0].tobytes() == drawn[1].tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", ["猫", "ネコ", "고양이", "кошка", "[red]dog[/red]", "{cat}", "a_b<c>&d"])
def test_every_character_of_a_name_has_a_glyph_or_the_label_is_drawn(name, monkeypatch):
    monkeypatch.setattr(draw, "_told", [""])  # warned before
    covered = all(draw._font_of(character) for character in name)
    assert draw._drawable(name, 7) == (name if covered else "7")
    assert "".join(text for text, _ in draw._runs(name, 20)) == name
    assert covered or not name.isascii()


def test_a_name_as_long_as_a_sentence_is_cut():
    assert draw._drawable("a" * 100, 1) == "a" * 37 + "..."
