"""Pix2Seq: what its decoder sees, says and keeps; its loss by a loop; sampling; bad numbers."""

import math

import pytest
import scenes
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import scene, torch

from boxops import models
from boxops.models import pix2seq, sequences
from boxops.models.causal import CausalDecoder

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {"size": 64, "n_bins": 32, "max_objects": 5, "encoder_layers": 1, "decoder_layers": 2, "dim": 16, "heads": 2,
        "feedforward": 16, "dropout": 0.0}  # fmt: skip


def tiny(num_classes=5, seed=0, **changes):
    torch.manual_seed(seed)
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 8, 8), torch.nn.ReLU())
    backbone = models.backbones.OneLevel(body, 8)
    model = pix2seq.Pix2Seq(backbone, num_classes, pix2seq.Settings(**(TINY | changes)))
    return model.eval()


def talkative(**changes):
    """Its tokens are not all as likely, as they are at first."""
    model = tiny(**changes)
    for parameter in model.decoder.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    return model


def read(model, images):
    return model.read(model.transform(images)[0])


def decoder_and_memory():
    torch.manual_seed(0)
    decoder = CausalDecoder(12, 10, 2, 16, 4, 32, 0.1).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    memory = decoder.memory(torch.randn(3, 7, 16))
    padding = torch.arange(7) >= torch.tensor([7, 4, 1])[:, None]
    return decoder, memory, padding


@torch.inference_mode()
def test_the_decoder_does_not_see_the_future():
    decoder, memory, padding = decoder_and_memory()
    tokens = torch.randint(12, (3, 10))
    before = decoder(tokens, memory, padding)
    assert before.shape == (3, 10, 12)
    for t in range(10):
        other = tokens.clone()
        other[:, t:] = (tokens[:, t:] + torch.randint(1, 12, (3, 10 - t))) % 12
        after = decoder(other, memory, padding)
        torch.testing.assert_close(after[:, :t], before[:, :t])
        assert ((after[:, t:] - before[:, t:]).abs().amax(dim=-1) > 1e-3).all()  # but the past and itself


@torch.inference_mode()
def test_the_decoder_does_not_see_padding():
    decoder, memory, padding = decoder_and_memory()
    tokens = torch.randint(12, (3, 10))
    before = decoder(tokens, memory, padding)
    other = [tuple(x + 9 * padding[:, None, :, None] for x in pair) for pair in memory]
    torch.testing.assert_close(decoder(tokens, other, padding), before)
    assert (decoder(tokens, other, None) - before)[1:].abs().max() > 1e-2


@torch.inference_mode()
def test_a_cached_token_is_the_uncached():
    decoder, memory, padding = decoder_and_memory()
    tokens, cache = torch.randint(12, (3, 10)), decoder.cache(memory)
    steps = [decoder(tokens[:, t : t + 1], memory, padding, cache, t) for t in range(10)]
    torch.testing.assert_close(torch.cat(steps, dim=1), decoder(tokens, memory, padding), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("top_p", [0.0, 0.4, 1.0])
@torch.inference_mode()
def test_cached_sequences_are_the_uncached(top_p):
    model = talkative(top_p=top_p)
    memory, padding = read(model, scene()[0])
    tokens, scores = model.generate(memory, padding)
    again, same = model.generate(memory, padding, cached=False)
    assert torch.equal(tokens, again)
    torch.testing.assert_close(scores, same, rtol=1e-5, atol=1e-5)
    assert len(tokens.unique()) >= 5


def test_the_decoder_has_a_gradient_to_everything():
    model = tiny()
    _, gradients = scenes.losses_and_gradients(model, *scene())
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert gradients.keys() == learning
    zero = {name for name, gradient in gradients.items() if not gradient.any()}
    assert not {name for name in zero if "key.bias" not in name and "in_proj_bias" not in name}


@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize("ordering", ["area", "dist2ori"])
def test_the_loss_by_a_loop(noise, ordering):
    """Each token by itself from those before it, those of one image with seven objects, none, and one."""
    model = talkative(noise=noise, ordering=ordering)
    images, targets = scene(most=7)
    targets[2] = {key: values[:1] for key, values in targets[2].items()}
    model.train()
    torch.manual_seed(3)
    losses = model(images, targets)
    torch.manual_seed(3)  # as the model: the transform draws too
    batch, resized = model.transform(images, targets)
    memory, padding = model.read(batch)
    memory = [(keys.detach(), values.detach()) for keys, values in memory]
    sums, count = {"coordinates": 0.0, "classes": 0.0}, 0.0
    for b, (target, size) in enumerate(zip(resized, batch.image_sizes, strict=True)):
        row = sequences.sequence(model.vocabulary, target["boxes"], target["labels"], size, 5, ordering, noise)
        given, wanted, weights = (x.tolist() for x in row)
        own = [(keys[b : b + 1], values[b : b + 1]) for keys, values in memory]
        for t in range(25):
            before = torch.tensor([[sequences.EOS, *given[:t]]])
            likely = model.decoder(before, own, padding[b : b + 1])[0, -1].detach().softmax(dim=0)
            sums["classes" if t % 5 == 4 else "coordinates"] -= weights[t] * math.log(likely[wanted[t]])
            count += weights[t]
    assert count == {True: 7 * 5 - 10 + 5 + 1 * 5 + 4, False: 25 + 1 + 6}[noise]
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(sums[name] / count, rel=1e-4)


@pytest.mark.parametrize("noise", [True, False])
def test_crowds_are_not_learnt(noise):
    model = tiny(noise=noise, ordering="area").train()
    images, targets = scene()
    torch.manual_seed(0)
    expected = model(images, targets)
    for target in targets:
        count = len(target["labels"])
        target["iscrowd"] = torch.tensor([0] * count + [1])
        target["boxes"] = torch.cat([target["boxes"], torch.tensor([[0.0, 0, 50, 50]])])
        target["labels"] = torch.cat([target["labels"], torch.ones(1, dtype=torch.int64)])
    torch.manual_seed(0)
    assert model(images, targets) == expected


def places(tokens, vocabulary):
    """Which are coordinates, which classes, which EOS."""
    return ((tokens >= 1) & (tokens <= vocabulary.n_bins), (tokens > vocabulary.n_bins) & (tokens < vocabulary.noise),
            tokens == sequences.EOS)  # fmt: skip


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.4, 1.0]), st.sampled_from([0.1, 1.0, 10.0]), st.booleans())
@settings(max_examples=12, deadline=None)
@torch.inference_mode()
def test_what_any_model_writes_can_be_read(seed, top_p, temperature, noise):
    model = talkative(seed=seed, top_p=top_p, temperature=temperature, noise=noise)
    images = scene(seed)[0]
    tokens, scores = model.generate(*read(model, images))
    coordinate, name, end = (x.view(-1, 5, 5) for x in places(tokens, model.vocabulary))
    ended = end.any(dim=-1)
    assert not (noise and ended.any())
    assert (ended == end.all(dim=-1)).all()  # a whole object's place or nothing
    assert (ended.diff(dim=1).int() >= 0).all()
    assert (coordinate[..., :4].all(dim=-1) | ended).all()
    assert (name[..., 4] | ended).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    for image, result in zip(images, model(images), strict=True):
        height, width = image.shape[-2:]
        boxes = result["boxes"]
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([width, height] * 2) + 1e-3).all()
        assert (result["scores"].diff() <= 0).all()
        assert ((result["labels"] >= 1) & (result["labels"] < 5)).all()


@torch.inference_mode()
def test_noise_is_read_as_the_likeliest_class():
    """Its probability, which noise's leaves little of, is the score; the class is what the next token reads."""
    model = tiny()
    v = model.vocabulary
    with torch.no_grad():
        model.decoder.bias[v.noise] = 30.0
        model.decoder.bias[v.n_bins + 2] = 20.0
    tokens, scores = model.generate(*read(model, scene()[0]))
    assert (tokens.view(-1, 5, 5)[..., 4] == v.n_bins + 2).all()
    logits = model.decoder(torch.nn.functional.pad(tokens[:, :-1], (1, 0)), *read(model, scene()[0]))
    torch.testing.assert_close(scores, logits.softmax(dim=-1)[:, 4::5, v.n_bins + 2], rtol=1e-4, atol=1e-6)
    assert scores.max() < 0.1


@torch.inference_mode()
def test_sequences_end(monkeypatch):
    """Each when it says EOS; without noise no step is taken when all have."""
    model = tiny(noise=False, top_p=0.0)
    images = scene()[0]
    steps, forward = [], model.decoder.forward
    monkeypatch.setattr(model.decoder, "forward", lambda *args: steps.append(1) or forward(*args))
    model.decoder.bias[sequences.EOS] = 100.0
    assert all(len(result["boxes"]) == 0 for result in model(images))
    assert len(steps) == 5
    assert model.padded(model.transform(images)[0])[1].tolist() == [0, 0, 0]
    assert len(steps) == 5 + 25
    model.decoder.bias[sequences.EOS] = 0.0
    ends, chosen = [2, 5, 1], pix2seq.pick

    def at_the_end_of_some(logits, top_p, draw):
        t, wide = len(steps) - 1, logits.shape[1] == model.settings.n_bins + 1
        token = chosen(logits[:, wide:], top_p, draw) + wide
        return token.where(torch.tensor(ends)[:, None] * 5 != t, 0) if wide else token

    monkeypatch.setattr(pix2seq, "pick", at_the_end_of_some)
    steps.clear()
    tokens, scores = model.generate(*read(model, images), wait=True)
    assert [int(row.count_nonzero()) for row in tokens] == [10, 25, 5]
    assert tokens.shape == (3, 25)
    assert scores.shape == (3, 5)


@torch.inference_mode()
def test_detections_depend_on_nothing_but_the_image():
    model = talkative(top_p=0.9)
    images = scene()[0]
    together = model(images)
    torch.manual_seed(7)
    for image, result in zip(images, together, strict=True):
        for name, values in model([image])[0].items():
            torch.testing.assert_close(values, result[name], rtol=1e-4, atol=1e-4)
    other = talkative(top_p=0.9)
    other.draws = pix2seq.Pix2Seq(other.backbone, 5, pix2seq.Settings(**TINY, seed=1)).draws
    assert any(not torch.equal(a["boxes"], b["boxes"]) for a, b in zip(together, other(images), strict=True))


@torch.inference_mode()
def test_what_lies_beyond_the_image_is_left_out(monkeypatch):
    """Boxes end where the image does; those in the padding alone are none. By falling score."""
    model = tiny()  # 64 pixels a side are bins 1 to 32
    tokens = torch.tensor([[3, 5, 9, 32, 34, 3, 28, 9, 32, 33, 1, 1, 32, 9, 36, 9, 9, 3, 3, 33, 0, 0, 0, 0, 0]] * 2)
    monkeypatch.setattr(model, "generate", lambda *_: (tokens, torch.tensor([[0.3, 0.9, 0.5, 0.8, 0.7]] * 2)))
    tall, square = model([torch.zeros(3, 64, 48), torch.zeros(3, 128, 128)])  # of the first 16 columns are padding
    bin_ = 64 / 31
    expected = torch.tensor([[0, 0, 8 * bin_, 64], [4 * bin_, 2 * bin_, 48, 8 * bin_]])
    torch.testing.assert_close(tall["boxes"], expected)
    assert tall["labels"].tolist() == [4, 2]
    torch.testing.assert_close(tall["scores"], torch.tensor([0.5, 0.3]))
    assert square["labels"].tolist() == [1, 4, 2]
    torch.testing.assert_close(square["boxes"][0], torch.tensor([54 * bin_, 4 * bin_, 128, 16 * bin_]))


def nucleus(probabilities, top_p):
    """Of the likeliest, as few as have top_p together; their shares."""
    kept, mass = {}, 0.0
    for token in sorted(range(len(probabilities)), key=lambda i: -probabilities[i]):
        if kept and mass >= top_p:
            break
        kept[token] = probabilities[token]
        mass += probabilities[token]
    return {token: share / mass for token, share in kept.items()}


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.sampled_from([0.0, 0.1, 0.35, 0.75, 1.0]))
@settings(max_examples=40, deadline=None)
def test_nucleus_sampling(counts, top_p):
    """Draws evenly over 0..1 give each token of the nucleus its share, and no other."""
    logits = torch.tensor(counts).double().log()[None]
    draws = [(i + 0.5) / 200 for i in range(200)]
    found = [int(pix2seq.pick(logits, top_p, draw)) for draw in draws]
    shares = nucleus([count / sum(counts) + 1e-12 * (8 - i) for i, count in enumerate(counts)], top_p - 1e-9)
    for token in range(len(counts)):
        assert found.count(token) / 200 == pytest.approx(shares.get(token, 0), abs=0.011)
    assert int(pix2seq.pick(logits, top_p, 1 - 2**-53)) in shares


def test_a_model_that_learns_writes_what_is_there():
    """Two images by heart: their objects are all found, sure, and what else is written is known to be noise."""
    torch.manual_seed(0)
    model = tiny(3, dim=32, max_objects=4, ordering="area")
    images = torch.rand(2, 3, 64, 64).unbind()
    targets = [{"boxes": torch.tensor([[5.0, 8, 30, 40], [33, 20, 60, 58]]), "labels": torch.tensor([1, 2])},
               {"boxes": torch.tensor([[20.0, 4, 50, 20]]), "labels": torch.tensor([2])}]  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    model.train()
    for _ in range(120):
        optimizer.zero_grad()
        sum(model(images, targets).values()).backward()
        optimizer.step()
    with torch.inference_mode():
        results = model.eval()(images)
    for target, result in zip(targets, results, strict=True):
        sure = result["scores"] > 0.5
        assert sure.sum() == len(target["boxes"])
        at = result["boxes"][sure][:, 0].argsort()
        torch.testing.assert_close(result["boxes"][sure][at], target["boxes"], rtol=0, atol=3)
        assert torch.equal(result["labels"][sure][at], target["labels"])


BAD = {"n_bins": 1, "max_objects": 0, "ordering": "size", "top_p": 1.5, "temperature": 0.0, "dim": 18, "heads": 3,
       "dropout": 1.0, "size": 0}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD.items())
def test_numbers_that_do_not_fit(name, value):
    with pytest.raises(ValueError, match=f"^{'dim' if name == 'heads' else name}: expected "):
        pix2seq.Settings(**(TINY | {name: value}))
