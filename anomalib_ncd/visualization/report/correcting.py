# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What the page needs so that its user can correct regions: boxes, likeness, and what to look at first."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from anomalib_ncd.regions.classes.prediction import named_probabilities
from anomalib_ncd.results.class_tree import class_tree
from anomalib_ncd.results.label_order import doubt_of, label_order, unit_rows
from anomalib_ncd.results.run_results import RunResults, digest_of_classes

LABEL_FIRST = 40
LIKENESS_DIMENSIONS = 24


def correcting_data(
    results: RunResults,
    class_names: Sequence[str],
    shown: np.ndarray,
    classes: np.ndarray,
    normal: int | None,
    corrected: Sequence[int] = (),
) -> dict[str, Any]:
    """Gather it as plain data.

    Of the regions ``shown`` on the map and ``corrected`` before, by their index in the batch; ``classes`` ``(R,)`` int
    and ``normal`` are those of the page. Returns ``boxes``, ``likeness`` (bytes of :func:`likeness`, Base64) and its
    ``dimensions``, ``first`` (what to label first), ``corrected``, by the place in `shown`, ``tree`` of fewer and more
    classes, where all regions are shown, and ``of``, the digest of the classes.
    """
    batch = results.batch
    probabilities = batch.region_class_probabilities
    features = batch.region_feature if batch.region_feature is not None else probabilities
    is_corrected = np.isin(shown, np.asarray(corrected, dtype=int))
    # As the run keeps them, so that its report is the same whenever it is made.
    all_rows = np.asarray(features, dtype=np.float16).astype(np.float32)
    rows = all_rows[shown]
    doubt = doubt_of(named_probabilities(np.asarray(probabilities), class_names))[shown]
    image_of = batch.region_image_index.numpy()[shown]
    near = likeness(rows)
    tree = class_tree(rows, classes, normal) if len(shown) == len(all_rows) else None
    splits = [] if tree is None else [{"of": of, "leaving": leaving.tolist()} for of, leaving in tree.splits]
    return {
        "boxes": np.round(batch.region_box_xyxy.numpy()[shown].astype(float), 2).tolist(),
        "likeness": base64.b64encode(near.tobytes()).decode("ascii"),
        "dimensions": near.shape[1],
        "first": label_order(rows, doubt, image_of, LABEL_FIRST, is_corrected),
        "corrected": np.flatnonzero(is_corrected).tolist(),
        "tree": None if tree is None else {"count": tree.count, "merges": tree.merges, "splits": splits},
        "of": digest_of_classes(results),
    }


def likeness(features: np.ndarray) -> np.ndarray:
    """Features ``(R, D)`` as ``(R, d)`` int8 of principal components, so that the page can find alike regions."""
    rows = unit_rows(features)
    if len(rows) < 2:
        return np.zeros((len(rows), 1), np.int8)
    reduced = PCA(min(LIKENESS_DIMENSIONS, *rows.shape), random_state=0).fit_transform(rows)
    return np.round(reduced / max(float(np.abs(reduced).max()), 1e-12) * 127).astype(np.int8)
