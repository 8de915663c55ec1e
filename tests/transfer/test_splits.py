"""App. B: which images an SVM is trained on, which choose its C, and which are tested."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_transfer import made_up

from verydeep.core.errors import VerydeepError
from verydeep.transfer.splits import Parts, parts_of

SETS = ("train", "train", "dev", "val", "test", "other")


def of_sets(*names: str, **changed: Any) -> Any:
    """Six images of two classes, one in each set of `SETS` that is named, the others left out."""
    kept = tuple(name for name in SETS if name in names)
    labels = np.arange(len(kept)) % 2
    ids = tuple(f"{number}.jpg" for number in range(len(kept)))
    rows = {256: np.zeros((len(kept), 2), dtype=np.float32)}
    told = {"ids": ids, "labels": labels, "sets": kept, "scales": rows, "classes": ("a", "b"), **changed}
    return made_up(**told)


def indices(parts: Parts) -> tuple[list[int], list[int], list[int]]:
    return parts.fit.tolist(), parts.dev.tolist(), parts.test.tolist()


# The sets of the data, the indices to fit, to choose C and to test, and why.
FIXED = [
    (("train", "dev", "test"), ([0, 1], [2], [3]), "their own parts"),
    (("train", "val", "test"), ([0, 1], [2], [3]), "val chooses C where there is no dev"),
    (("train", "dev", "val"), ([0, 1], [2], [3]), "val is tested where dev chooses C and there is no test"),
    (("train", "dev", "val", "test"), ([0, 1], [2], [4]), "test before val"),
    (("train", "val"), ([0, 1], [2], []), "val chooses C: nothing is left to test"),
    (("train", "dev", "other"), ([0, 1], [2], []), "a set of another name is not used"),
]


@pytest.mark.parametrize(("names", "expected", "reason"), FIXED)
def test_the_sets_of_the_data(
    names: tuple[str, ...], expected: tuple[list[int], list[int], list[int]], reason: str
) -> None:
    (parts,) = parts_of("own", of_sets(*names), splits=3, seed=0)
    assert parts.name == "given"
    assert indices(parts) == expected, reason
    assert parts.train.tolist() == sorted(expected[0] + expected[1])


def test_missing_sets_are_named() -> None:
    with pytest.raises(VerydeepError, match="missing the set train; they have dev, test"):
        parts_of("own", of_sets("dev", "test"), splits=1, seed=0)
    with pytest.raises(VerydeepError, match="missing the set val; they have train, test"):
        parts_of("own", of_sets("train", "test"), splits=1, seed=0)


def marked(data: str) -> Any:
    """Images of several classes each, with VOC's sets."""
    marks = np.ones((4, 2), dtype=np.int8)
    return of_sets("train", "val", "test", marks=marks, labels=np.full(4, -1), data=data)


@pytest.mark.parametrize("protocol", ["voc2007", "voc2012", "voc2012-action"])
def test_vocs_sets_are_those_of_its_own_data(protocol: str) -> None:
    """The action protocol takes descriptors of images and of the persons' boxes."""
    boxes = ["voc2012-action-box"] if protocol == "voc2012-action" else []
    for data in (protocol, *boxes):
        (parts,) = parts_of(protocol, marked(data), splits=1, seed=0)
        assert indices(parts) == ([0, 1], [2], [3])
    with pytest.raises(VerydeepError, match="does not fit these features, which are of voc1999"):
        parts_of(protocol, marked("voc1999"), splits=1, seed=0)


def test_protocols_of_one_class_an_image_and_of_several_are_not_confused() -> None:
    with pytest.raises(VerydeepError, match="does not fit voc2007, which has several classes per image"):
        parts_of("own", marked("voc2007"), splits=1, seed=0)
    with pytest.raises(VerydeepError, match="does not fit made up, which has one class per image"):
        parts_of("voc2007", made_up(), splits=1, seed=0)
    with pytest.raises(
        VerydeepError, match="unknown protocol 'voc'; the protocols are caltech101, caltech256, voc2007"
    ):
        parts_of("voc", made_up(), splits=1, seed=0)


def test_an_unlabelled_image_is_named() -> None:
    labels = np.array([0, 1, -1, 0])
    with pytest.raises(VerydeepError, match=r"^2\.jpg has no label"):
        parts_of("own", of_sets("train", "dev", "test", labels=labels), splits=1, seed=0)


def test_caltechs_protocol_counts_as_the_paper_does() -> None:
    features = made_up(photos=100)
    parts = parts_of("caltech101", features, splits=3, seed=0)
    assert [part.name for part in parts] == ["seed 0", "seed 1", "seed 2"]
    for part in parts:
        assert np.bincount(features.labels[part.fit]).tolist() == [24] * 4
        assert np.bincount(features.labels[part.dev]).tolist() == [6] * 4  # a fifth of 30
        assert np.bincount(features.labels[part.test]).tolist() == [50] * 4
        assert len(set(part.fit) | set(part.dev) | set(part.test)) == 4 * 80  # no photo in two parts
        assert part.train.tolist() == sorted([*part.fit, *part.dev])
    assert len({tuple(part.test) for part in parts}) == 3
    (rest,) = parts_of("caltech256", features, splits=1, seed=0)
    assert np.bincount(features.labels[rest.train]).tolist() == [60] * 4
    assert np.bincount(features.labels[rest.test]).tolist() == [40] * 4  # all that is left


@pytest.mark.parametrize("protocol", ["own", "caltech101"])
def test_a_split_depends_on_its_seed_alone(protocol: str) -> None:
    features = made_up(photos=60)
    several = parts_of(protocol, features, splits=3, seed=4)
    assert [parts.name for parts in several] == ["seed 4", "seed 5", "seed 6"]
    for number, parts in enumerate(several):
        (alone,) = parts_of(protocol, features, splits=1, seed=4 + number)
        assert indices(parts) == indices(alone)


def test_features_of_some_splits_serve_those_alone() -> None:
    features = made_up(photos=60, recipe={**made_up().recipe, "splits": 3})
    assert len(parts_of("caltech101", features, splits=3, seed=0)) == 3
    assert len(parts_of("caltech101", features, splits=1, seed=2)) == 1
    for protocol, splits, seed in (("caltech101", 4, 0), ("caltech101", 1, 3), ("own", 1, 0)):
        with pytest.raises(VerydeepError, match=f"splits 0 to 2 only, and {protocol} with --seed {seed}"):
            parts_of(protocol, features, splits, seed)


def test_random_splits_are_not_of_fixed_sets() -> None:
    with pytest.raises(VerydeepError, match="caltech101 draws random splits, and these features are of fixed sets"):
        parts_of("caltech101", made_up(photos=60, sets=("train",) * 240), splits=1, seed=0)


def test_groups_are_of_random_splits_of_own_images() -> None:
    """Those of fixed sets, and of Caltech, are refused."""
    for protocol, features in (("own", of_sets("train", "dev", "test")), ("caltech101", made_up(photos=60))):
        with pytest.raises(VerydeepError, match="--group-by applies to random splits of own images"):
            parts_of(protocol, features, splits=1, seed=0, group_by="a")
    features = made_up(photos=60)
    (parts,) = parts_of("own", features, splits=1, seed=0, group_by=r"(\d)\d\.jpg")
    of = [{features.ids[index][-6] for index in part} for part in (parts.fit, parts.dev, parts.test)]
    assert sum(map(len, of)) == len(set.union(*of))


def test_classes_of_two_images_have_no_part_to_choose_c() -> None:
    with pytest.raises(VerydeepError, match="made up has too few images for a dev part: at least 3 per class"):
        parts_of("own", made_up(photos=2), splits=1, seed=0)
    (parts,) = parts_of("own", made_up(photos=3), splits=1, seed=0)
    assert [len(part) for part in (parts.fit, parts.dev, parts.test)] == [4, 4, 4]


def test_images_can_be_left_out_of_every_part() -> None:
    parts = Parts("x", np.array([4, 1]), np.array([2, 3]), np.array([0, 5]))
    assert parts.train.tolist() == [1, 2, 3, 4]
    assert indices(parts.without(np.array([1, 3, 5]))) == ([4], [2], [0])
    assert parts.without(np.array([1])).name == "x"
