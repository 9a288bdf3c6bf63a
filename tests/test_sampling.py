"""sample_matches and mine_hard_negatives: the same choice on every backend, and the right one."""

import backends
import numpy as np
import pytest
from box_sets import SCORES
from cases.sampling import MATCHES
from hypothesis import given
from hypothesis import strategies as st

import boxops
from boxops.reference.sampling import random_keys

OPS = ("sample_matches", "mine_hard_negatives")


def test_layouts(backend):
    rng = np.random.default_rng(1)
    for shape in [(30,), (4, 30)]:
        matches = MATCHES["few positives"](rng, shape)
        backends.check_layouts(backend, "sample_matches", {"matches": matches, "batch_size_per_image": 9, "seed": 1})
        backends.check_layouts(backend, "mine_hard_negatives", {"loss": rng.random(shape), "matches": matches})


def test_known_numbers():
    """The vectors of Random123's kat_vectors for philox4x32 10: counter and key of zeros, and of ones."""
    assert [hex(k) for k in random_keys(0, 0, 4)] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]
    ones, place = 2**64 - 1, np.uint64(2**64 - 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "arange", lambda *_, **__: np.array([place]))
        keys = random_keys(ones, ones, 4)
    assert [hex(k) for k in keys] == ["0x408f276d", "0x41c83b0e", "0xa20bc7c6", "0x6d5451fd"]


# What a sample is


def check_sample(matches, size, fraction, indices, num_positive, num_sampled):
    """Counts as torchvision's sampler has them, each kind rising and without duplicates, then -1."""
    there = ((matches >= 0).sum(), (matches == -1).sum())
    positives = min(there[0], int(size * fraction))
    negatives = min(there[1], size - positives)
    assert (num_positive, num_sampled) == (positives, positives + negatives)
    first, second, rest = np.split(indices, [positives, positives + negatives])
    assert (matches[first] >= 0).all() and (matches[second] == -1).all() and (rest == -1).all()
    assert (np.diff(first) > 0).all() and (np.diff(second) > 0).all()


@given(st.lists(st.sampled_from([-3, -2, -1, -1, 0, 5]), max_size=40), st.integers(0, 45),
       st.sampled_from([0, 0.25, 0.5, 0.99, 1]), st.integers(-(2**70), 2**70))  # fmt: skip
def test_what_a_sample_is(matches, size, fraction, seed):
    matches = np.array(matches, np.int64)
    got = boxops.sample_matches(matches, size, fraction, seed=seed)
    check_sample(matches, size, fraction, *got)
    for again, want in zip(boxops.sample_matches(matches, size, fraction, seed=seed), got, strict=True):
        np.testing.assert_array_equal(again, want)


def test_counts_as_torchvision(torchvision):
    import torch
    from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

    rng = np.random.default_rng(0)
    for size, fraction in [(256, 0.5), (512, 0.25), (7, 0.3), (64, 1.0), (64, 0.0)]:
        for kind in ("few positives", "many positives", "no positives", "no negatives"):
            matches = torch.from_numpy(MATCHES[kind](rng, (3, 900)))
            labels = [torch.where(m >= 0, 1, torch.where(m == -1, 0, -1)) for m in matches]
            positives, negatives = BalancedPositiveNegativeSampler(size, fraction)(labels)
            _, num_positive, num_sampled = boxops.sample_matches(matches, size, fraction)
            assert num_positive.tolist() == [int(p.sum()) for p in positives]
            assert (num_sampled - num_positive).tolist() == [int(n.sum()) for n in negatives]


@pytest.mark.parametrize("size", [24, 136])  # a few of many, where keys are cut off early, and most of them
def test_uniform_over_seeds(size):
    """How often each anchor is chosen, by chi-square at 1 in 1000; the seeds are fixed, so this never flickers."""
    scipy = pytest.importorskip("scipy.stats")
    matches, runs = np.tile([0, -1, -1, -2], 60)[None].repeat(2000, 0), 2000
    indices, num_positive, num_sampled = boxops.sample_matches(matches, size, 0.25, seed=5)
    assert (num_positive == size // 4).all() and (num_sampled == size).all()
    chosen = np.zeros((runs, 240))
    np.put_along_axis(chosen, indices, 1, axis=1)
    by_seed = np.zeros(240)
    for seed in range(500):
        by_seed[boxops.sample_matches(matches[0], size, 0.25, seed=seed)[0]] += 1
    for counts, times in ((chosen.sum(0), runs), (by_seed, 500)):
        for kind, share in ((matches[0] == 0, size / 4 / 60), (matches[0] == -1, size * 0.75 / 120)):
            count, n = counts[kind], kind.sum()
            # Drawing without replacement: the variance of a count is times share (1 - share), n - 1 of n degrees free.
            statistic = ((count - times * share) ** 2).sum() / (times * share * (1 - share)) * (n - 1) / n
            assert 0.0005 < scipy.chi2.sf(statistic, n - 1) < 0.9995
    # Neighbours, which share a block of random numbers, are chosen independently of each other.
    for step in (1, 4, 5):
        first = np.flatnonzero(matches[0] == -1)
        pairs = first[np.isin(first + step, first)]
        together = (chosen[:, pairs] * chosen[:, pairs + step]).mean()
        k, n = size * 0.75, 120
        assert together == pytest.approx(k * (k - 1) / (n * (n - 1)), abs=0.01)


def test_images_and_seeds_are_independent(backend):
    matches = backend.to_array(np.full((5, 1000), -1))
    indices = backend.to_numpy(backend.ops.sample_matches(matches, 100, seed=3)[0])
    others = backend.to_numpy(backend.ops.sample_matches(matches, 100, seed=4)[0])
    samples = [*indices, *others]
    shared = [len(np.intersect1d(a, b)) for i, a in enumerate(samples) for b in samples[:i]]
    assert max(shared) < 30  # 10 on average
    alone = backend.ops.sample_matches(backend.to_array(np.full(1000, -1)), 100, seed=3)
    np.testing.assert_array_equal(backend.to_numpy(alone[0]), indices[0])


def test_seeds(device):
    import torch

    matches = torch.full((2, 1000), -1, device=device)

    def sample(seed=None):
        return boxops.sample_matches(matches, 50, seed=seed)[0].tolist()

    torch.manual_seed(0)
    first, second = sample(), sample()
    torch.manual_seed(0)
    assert (sample(), sample()) == (first, second) and first != second
    generator = torch.Generator(device).manual_seed(7)
    drawn = [sample(generator), sample(generator)]
    assert drawn[0] != drawn[1] and sample(torch.Generator(device).manual_seed(7)) == drawn[0]
    assert sample(np.int64(5)) == sample(5) == sample(5 + 2**64) != sample(6)
    assert sample(np.random.default_rng(1)) == sample(np.random.default_rng(1))
    array = matches.cpu().numpy()
    assert boxops.sample_matches(array, 50, seed=5)[0].tolist() == sample(5)
    one, other = (boxops.sample_matches(array, 50, seed=np.random.default_rng(1))[0].tolist() for _ in range(2))
    assert one == other == sample(np.random.default_rng(1))
    assert boxops.sample_matches(array, 50)[0].tolist() != boxops.sample_matches(array, 50)[0].tolist()
    with pytest.raises(TypeError, match=r"^sample_matches: expected seed as an integer, got Generator$"):
        boxops.sample_matches(array, 50, seed=torch.Generator())


def test_the_operator_checks_its_seed():
    torch = pytest.importorskip("torch")

    matches = torch.zeros(3, dtype=torch.int64)
    boxops.sample_matches(matches, 1)
    one = torch.zeros(1, dtype=torch.int64)
    for seed, device_seed, words in [
        (None, torch.zeros(2, dtype=torch.int64), r"device_seed of shape \[1\], got \[2\]"),
        (None, torch.zeros(1), "device_seed of an integer type, got float32"),
        (0, one, "seed or device_seed, got both"),
    ]:
        with pytest.raises((RuntimeError, ValueError), match=f"^sample_matches: expected {words}$"):
            torch.ops.boxops.sample_matches(matches, 1, 0.5, seed, device_seed)
    for seed in (5, -1, -(2**63), 2**63 - 1):
        got = torch.ops.boxops.sample_matches(matches, 2, 1.0, seed, None)
        want = torch.ops.boxops.sample_matches(matches, 2, 1.0, None, one + seed)
        assert [*map(torch.Tensor.tolist, got)] == [*map(torch.Tensor.tolist, want)]


# Hard negatives


def torchvision_ssd(loss, foreground, ratio):
    """SSD.compute_loss of torchvision: rank by a double sort."""
    negative_loss = loss.clone()
    negative_loss[foreground] = -float("inf")
    _, order = negative_loss.sort(1, descending=True)
    return order.sort(1)[1] < ratio * foreground.sum(1, keepdim=True)


def test_as_ssd_of_torchvision():
    torch = pytest.importorskip("torch")

    rng = np.random.default_rng(0)
    for ratio in (3, 1, 0.5):
        foreground = torch.from_numpy(rng.random((4, 700)) < 0.05)
        loss = torch.from_numpy(rng.permutation(2800).reshape(4, 700) / 700.0)
        got = boxops.mine_hard_negatives(loss, foreground.long() - 1, ratio)
        if ratio == 0.5:  # where it keeps fractions, it takes one more
            assert (got.sum(1) == (0.5 * foreground.sum(1)).long()).all()
        else:
            assert torch.equal(got, torchvision_ssd(loss, foreground, ratio))


def test_ties_and_odd_losses(backend):
    loss = np.array([np.nan, 1, np.inf, 1, -np.inf, 1, -0.0, 0.0], np.float32)
    matches = np.array([-1, 0, -1, -1, -1, -1, -1, -1])
    order = [2, 3, 5, 6, 7, 4, 0]
    for count in range(9):
        got = backend.ops.mine_hard_negatives(*map(backend.to_array, (loss, matches)), ratio=float(count))
        assert backend.to_numpy(got).dtype == bool
        assert np.flatnonzero(backend.to_numpy(got)).tolist() == sorted(order[:count])


def test_float64_losses_are_compared_as_float64(backend):
    loss, matches = np.array([1, 1 + 1e-12, 1 - 1e-12, 5]), np.array([-1, -1, -1, 0])
    got = backend.ops.mine_hard_negatives(*map(backend.to_array, (loss, matches)), ratio=1.0)
    assert backend.to_numpy(got).tolist() == [False, True, False, False]


def test_each_image_has_its_own(backend):
    rng = np.random.default_rng(0)
    for name in SCORES:
        loss, matches = SCORES[name](rng, (6, 90)), MATCHES["few positives"](rng, (6, 90))
        both = [backend.to_array(loss), backend.to_array(matches)]
        whole = backend.to_numpy(backend.ops.mine_hard_negatives(*both, min_negatives=4))
        for b in range(6):
            own = [backend.to_array(loss[b]), backend.to_array(matches[b])]
            got = backend.to_numpy(backend.ops.mine_hard_negatives(*own, min_negatives=4))
            np.testing.assert_array_equal(got, whole[b])
            taken, negatives = got.sum(), (matches[b] == -1).sum()
            assert taken == min(max(3 * (matches[b] >= 0).sum(), 4), negatives)
            assert (matches[b][got] == -1).all()


@pytest.mark.gpu
def test_the_device_never_waits_and_can_be_captured():
    backends.CUDA.require()
    import torch

    rng = np.random.default_rng(0)
    matches = torch.from_numpy(MATCHES["few positives"](rng, (3, 5000))).cuda()
    loss = torch.from_numpy(rng.random((3, 5000))).cuda()

    def choose(seed=None):
        return *boxops.sample_matches(matches, 64, seed=seed), boxops.mine_hard_negatives(loss, matches)

    want = choose(1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        choose(1)
        choose()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured, fresh = choose(1), choose()
    graph.replay()
    torch.testing.assert_close(captured, want)
    first = fresh[0].clone()
    graph.replay()
    assert not torch.equal(first, fresh[0])  # torch's generator moves on from replay to replay
