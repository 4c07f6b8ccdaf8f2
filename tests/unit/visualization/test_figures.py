# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from anomalib_ncd import NcdDataModule
from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.visualization.drawing import NORMAL_RGB, PALETTE_RGB
from anomalib_ncd.visualization.figures import count_confusion, draw_confusion, draw_map, run_figures
from anomalib_ncd.visualization.gallery import draw_gallery

NAMES = ["normal", "a", "b"]
MERGING = RegionMerging(tuple(NAMES), 0)


@pytest.fixture(scope="module")
def module(tiny_run):
    module = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, labels="folders", eval_batch_size=5)
    module.region_table()
    return module


@pytest.fixture
def batches(module):
    """Regions are put into the classes 1 and 2 by turns, images into 1."""
    batches = []
    for batch in module.test_dataloader():
        count = len(batch.region_area)
        values = {
            "region_pred_class_id": torch.arange(count) % 2 + 1,
            "region_pred_class_score": torch.rand(count),
            "pred_class_id": torch.ones(len(batch), dtype=torch.long),
        }
        batches.append(batch.update(**values))
    return batches


def test_a_run_has_all_figures(module, batches):
    table = module.region_table()
    figures = run_figures(
        batches, MERGING, table, module.class_names, np.random.default_rng(0).normal(size=(len(table), 2))
    )
    assert list(figures) == ["gallery", "classes/a", "classes/b", "confusion", "map"]
    assert all(figure.dtype == np.uint8 and figure.shape[2] == 3 for figure in figures.values())
    np.testing.assert_array_equal(figures["gallery"], draw_gallery(batches, NAMES, table))
    members = torch.cat([batch.region_pred_class_id for batch in batches]).bincount().tolist()
    expected = draw_gallery(batches, NAMES, table, members[1], only="a")
    assert figures["classes/a"].shape[0] == expected.shape[0]


def test_classes_of_one_name_are_one(module, batches):
    figures = run_figures(batches, RegionMerging(("normal", "a", "a"), 0), module.region_table())
    assert list(figures) == ["gallery", "classes/a"]


def test_what_is_unknown_is_left_out(module, batches):
    assert list(run_figures(batches, MERGING)) == []
    assert list(run_figures([], MERGING, module.region_table(), module.class_names)) == []
    for batch in batches:
        batch.update(class_id=torch.full((len(batch),), -1))
    assert "confusion" not in run_figures(batches, MERGING, None, module.class_names)
    for batch in batches:
        batch.update(region_pred_class_id=None)
    assert run_figures(batches, MERGING, module.region_table()) == {}


def test_confusion_counts_as_scikit_learn_does():
    rng = np.random.default_rng(0)
    target, preds = rng.integers(0, 4, 200), rng.integers(0, 6, 200)
    classes = [f"class_{i}" for i in range(7)]
    counts, rows, columns = count_confusion(preds, target, classes, list("wxyz"))
    expected = confusion_matrix(target, preds, labels=range(6))[:4]
    assert rows == list("wxyz")
    assert sorted(columns) == classes[:6]
    for column, name in enumerate(columns):
        np.testing.assert_array_equal(counts[:, column], expected[:, int(name[-1])])


def test_classes_that_go_together_lie_on_the_diagonal():
    target = np.repeat([0, 1, 2], 10)
    preds = np.repeat([5, 3, 0], 10)
    preds[:3] = 1
    counts, _, columns = count_confusion(preds, target, list("abcdef"), ["x", "y", "z"])
    assert columns == ["f", "b", "d", "a"]
    assert counts.tolist() == [[7, 3, 0, 0], [0, 0, 10, 0], [0, 0, 0, 10]]


def test_images_without_a_label_do_not_count():
    counts, _, columns = count_confusion(np.array([0, 1]), np.array([-1, 0]), ["a", "b"], ["x"])
    assert (counts.tolist(), columns) == ([[1]], ["b"])


@pytest.mark.parametrize("shape", [(1, 1), (3, 9), (12, 2), (40, 45)])
def test_the_confusion_matrix_has_one_cell_per_pair(shape):
    counts = np.zeros(shape, int)
    empty = draw_confusion(counts, ["r"] * shape[0], ["c"] * shape[1])
    counts[0, 0] = 5
    filled = draw_confusion(counts, ["r"] * shape[0], ["c"] * shape[1])
    assert filled.shape == empty.shape
    rows, columns = np.nonzero((filled != empty).any(axis=2))
    box_area = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
    # Light blue and white are the matrix; its cells are of one size.
    top, left = rows.min(), columns.min()
    assert max(filled.shape[:2]) < 2000
    assert box_area * shape[0] * shape[1] < filled.shape[0] * filled.shape[1] * 1.01
    assert tuple(filled[top + 2, left + 2]) == (8, 48, 107)  # the darkest of matplotlib's Blues


@pytest.mark.parametrize("counts", [np.zeros((2, 3)), np.zeros((0, 2)), np.zeros(2)])
def test_names_go_with_counts(counts):
    with pytest.raises(ValueError, match=r"`counts` must have shape \(\d, 2\) and not be empty"):
        draw_confusion(counts, ["x"] * (2 if counts.ndim == 1 or len(counts) else 0), ["a", "b"])


def test_the_map_shows_each_region_in_the_colour_of_its_class():
    picture = draw_map(
        np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0]]), np.array([0, 1, 3]), ["normal", "a", "b", "a"], 0
    )
    # Points are laid over white at 80 per cent. The legend, right of column 780, has entries for classes with regions.
    spots = {
        name: (np.abs(picture.astype(int) - (np.array(rgb) * 0.8 + 51)) < 3).all(axis=2)
        for name, rgb in (("a", PALETTE_RGB[0]), ("normal", NORMAL_RGB), ("b", PALETTE_RGB[1]))
    }
    points = {name: spot[:, :780] for name, spot in spots.items()}
    assert points["a"].sum() == pytest.approx(2 * points["normal"].sum(), rel=0.1)
    assert spots["normal"][:, 780:].any()
    assert not spots["b"].any()
    rows, columns = np.nonzero(points["a"])
    assert rows.max() - rows.min() > 300  # one above the other, right of the normal one
    assert np.ptp(columns) < 20
    assert np.nonzero(points["normal"])[1].mean() < columns.min() - 100


def test_maps_of_nothing_and_of_many_classes():
    assert draw_map(np.zeros((0, 2)), np.zeros(0, int), ["a"]).shape == (700, 900, 3)
    names = [f"a class with a very long name {i}" for i in range(60)]
    assert draw_map(np.random.default_rng(0).normal(size=(60, 2)), np.arange(60), names).shape == (700, 900, 3)


def test_there_is_one_position_per_region():
    with pytest.raises(ValueError, match=r"`positions` must have shape \(3, 2\), one row per region, got \(2, 2\)"):
        draw_map(np.zeros((2, 2)), np.zeros(3, int), ["a"])
