"""Every number that an op takes: never NaN, and infinite or negative only where that means something."""

import inspect
import math

import cases
import pytest

import boxops

CALLS = cases.gathered("NUMBERS")

# Infinite: no limit, or nothing passes. Below 0, and -inf: everything passes, or as the formula has it. These are the
# words that several families share; tests/cases has those of one.
THRESHOLDS = {"score_threshold", "min_size", "high", "low", *cases.gathered("ANY_NUMBER")}
INFINITE = {*THRESHOLDS, "iou_threshold", "size", "image_size", "image_sizes", "clip", *cases.gathered("INFINITE")}
DOWNWARDS = {*THRESHOLDS, "clip"}
NEGATIVE = {*DOWNWARDS, *cases.gathered("NEGATIVE")}
ALLOWED = {math.nan: set(), math.inf: INFINITE - {"low"}, -math.inf: DOWNWARDS - {"high"}, -1: NEGATIVE - {"high"}}


# Integers, though of a name that allows infinity
WHOLE = {("image_size", "grid_anchors"), ("image_size", "paste_masks")}


def variants(value, bad):
    """The number, or the nested numbers one at a time, replaced by the bad one."""
    if not isinstance(value, (list, tuple)):
        return [bad]
    return [
        type(value)([*value[:i], new, *value[i + 1 :]]) for i, old in enumerate(value) for new in variants(old, bad)
    ]


def test_every_number_has_a_call():
    for op in sorted(boxops.__all__):
        if inspect.isroutine(getattr(boxops, op)):
            parameters = inspect.signature(getattr(boxops, op)).parameters.values()
            names = {p.name for p in parameters if "float" in str(p.annotation) or "int" in str(p.annotation)}
            given = {name for _, numbers in CALLS.get(op, []) for name in numbers}
            assert names == given, f"expected NUMBERS of {op} in tests/cases to have {names}, got {given}"


@pytest.mark.parametrize("op", CALLS)
def test_bad_numbers(backend, op):
    for arguments, numbers in CALLS[op]:
        backend.run(op, {**arguments, **numbers})
        for bad, allowed in ALLOWED.items():
            for name, value in numbers.items():
                for changed in variants(value, bad):
                    call = {**arguments, **numbers, name: changed}
                    if name in allowed and (name, op) not in WHOLE:
                        backend.run(op, call)
                        continue
                    with pytest.raises((ValueError, TypeError, RuntimeError), match=f"^{op}: expected "):
                        backend.run(op, call)
                        print(f"{op} takes {name}={changed}")  # shown where it does
