"""Choosing the anchors that a loss looks at."""

import numpy as np

from boxops.reference.common import by_falling_score


def sample_matches(matches, batch_size_per_image, positive_fraction=0.5, *, seed=None):
    size = batch_size_per_image
    if not hasattr(seed, "__index__"):
        seed = (seed or np.random.default_rng()).integers(2**63)
    if matches.ndim == 2:
        images = [_sample(match, size, positive_fraction, seed, image) for image, match in enumerate(matches)]
        indices, positives, sampled = zip(*images, strict=True) if images else ((), (), ())
        return (
            np.array(indices, np.int64).reshape(len(matches), size),
            np.array(positives, np.int64),
            np.array(sampled, np.int64),
        )
    return _sample(matches, size, positive_fraction, seed, 0)


def _sample(match, size, positive_fraction, seed, image):
    keys = random_keys(seed, image, len(match))

    def smallest(members, count):
        return np.sort(members[np.argsort(keys[members], kind="stable")[:count]])

    positives = smallest(np.flatnonzero(match >= 0), int(size * positive_fraction))
    negatives = smallest(np.flatnonzero(match == -1), size - len(positives))
    chosen = np.concatenate([positives, negatives])
    indices = np.pad(chosen, (0, size - len(chosen)), constant_values=-1)
    return indices, np.asarray(len(positives)), np.asarray(len(chosen))


def random_keys(seed, image, count):
    """32 random bits for each place: word i % 4 of Philox4x32-10 (Salmon et al. 2011) at counter (i // 4, image)."""
    low, half = np.uint64(2**32 - 1), np.uint64(32)
    place = np.arange((count + 3) // 4, dtype=np.uint64)
    counter = [place & low, place >> half, np.uint64(image) & low, np.uint64(image) >> half]
    key = [np.uint64(int(seed) % 2**32), np.uint64((int(seed) >> 32) % 2**32)]
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * counter[0], np.uint64(0xCD9E8D57) * counter[2]
        counter = [b >> half ^ counter[1] ^ key[0], b & low, a >> half ^ counter[3] ^ key[1], a & low]
        key = [np.uint64(int(key[0]) + 0x9E3779B9) & low, np.uint64(int(key[1]) + 0xBB67AE85) & low]
    return np.stack(np.broadcast_arrays(*counter), axis=-1).reshape(-1)[:count]


def mine_hard_negatives(loss, matches, ratio=3.0, *, min_negatives=0):
    if matches.ndim == 2:
        masks = [
            mine_hard_negatives(*image, ratio, min_negatives=min_negatives) for image in zip(loss, matches, strict=True)
        ]
        return np.array(masks, bool).reshape(matches.shape)
    order = by_falling_score(loss)
    negatives = order[matches[order] == -1]
    count = min(max(int(ratio * (matches >= 0).sum()), min_negatives), len(negatives))
    return np.isin(np.arange(len(matches)), negatives[:count])
