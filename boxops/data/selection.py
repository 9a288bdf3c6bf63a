"""Some classes of a data set: the others' objects are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from boxops.data.checks import class_list
from boxops.data.dataset import DetectionDataset
from boxops.data.records import take


def only(data: DetectionDataset, classes: Sequence[str]) -> None:
    """Leaves the objects of these classes alone in a data set, label 1 for the first; a note counts the others.

    All images stay: those that show none of the classes are background. Category ids are those of the files.

    Raises:
        ValueError: the data has no such class, or its images are generated.
    """
    names, known = class_list(classes), data.classes
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"only: expected classes of {known}, got {unknown}")
    if not data._records:
        raise ValueError("only: expected objects in files, got generated ones")
    old = [known.index(name) for name in names]
    labels = np.zeros(len(known) + 1, np.int64)
    labels[np.array(old) + 1] = np.arange(1, len(names) + 1)
    left = 0
    for index, record in enumerate(data._records):
        record = replace(record, labels=labels[record.labels])
        data._records[index] = take(record, np.flatnonzero(record.labels))
        left += int((record.labels == 0).sum())
    data.classes, data.category_ids = names, [data.category_ids[i] for i in old]
    if others := [name for name in known if name not in names]:
        data.notes.append(f"left out: {left} objects of other classes: {', '.join(others)}")
