# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Known kinds beside unknown ones: "Generalized Category Discovery" (Vaze et al., CVPR 2022).

Examples are corrections from the start: their regions join those of the run, their classes are said, and the classes of
all regions follow as they do after any correction.
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from anomalib.models import AnomalibModule
from torch.utils.data import DataLoader

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.data.datasets import EvalImages
from anomalib_ncd.data.detector_maps import predict_anomaly_maps
from anomalib_ncd.data.images import LabelledImage
from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.models.encoded_regions import encode_images, given
from anomalib_ncd.models.lightning_model import AnomalyNcd
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.results.class_names import NORMAL
from anomalib_ncd.results.corrections import Correction, majority
from anomalib_ncd.runs.refine import refit
from anomalib_ncd.runs.refinement import ClassPlan


class ExampleRegions(NamedTuple):
    """Regions of examples, cut in one way, and the example that each lies in."""

    table: RegionTable
    examples: list[LabelledImage]


def cut_examples(datamodule: NcdDataModule) -> list[ExampleRegions]:
    """Find the defects of examples: where masks are, or else where the run's detector finds something.

    ``ValueError`` if nothing is found in any example of a class.
    """
    detector, masked, unmasked = datamodule.anomaly_maps, list[LabelledImage](), list[LabelledImage]()
    for one in datamodule.examples_found:
        (unmasked if one.mask_path is None else masked).append(one)
    datamodule.region_table()  # which fits the score range
    score_range, settings = datamodule.fitted_score_range or (0.0, 1.0), datamodule.region_settings
    by_mask = replace(settings, method="masks", threshold=None)
    paths = [one.mask_path for one in masked if one.mask_path]
    found = [_cut(masked, paths, score_range, by_mask)] if masked else []
    if isinstance(detector, AnomalibModule) and unmasked:
        images = [one.image for one in unmasked]
        with tempfile.TemporaryDirectory() as folder:
            maps = predict_anomaly_maps(detector, images, folder, bit_depth=settings.bit_depth)
            found.append(_cut(unmasked, maps, score_range, settings))
    has_region = {one.class_name for part in found for one in part.examples}
    missing = sorted({one.class_name for one in datamodule.examples_found} - has_region)
    if missing:
        msg = f"Nothing was found in the examples of {missing[0]!r}; put masks of the defects beside them."
        raise ValueError(msg)
    return found


def learn_examples(
    model: AnomalyNcd, datamodule: NcdDataModule, batches: Sequence[NcdBatch], found: Sequence[ExampleRegions]
) -> list[NcdBatch]:
    """Give the classes of a run the names of known kinds, and regions like the examples to them.

    A class is called as the kind that most of its examples fall into, where most examples there are of that kind; other
    kinds become classes of their own. Examples themselves are none of the run's images. Returns the images, predicted
    anew. ``batches`` are all images, described and predicted, ``found`` the regions of the examples; classes of the
    model and what is known to it are changed in place.
    """
    encoded, rows = _encode(model, datamodule, found), [one for part in found for one in part.examples]
    parts = [*batches, *encoded]
    features = torch.cat([given(one.region_feature, "Images hold no features") for one in parts]).numpy()
    appearance = torch.cat([given(one.region_appearance, "Images hold no looks") for one in parts]).numpy()
    said = torch.cat([given(one.region_class_probabilities, "Images hold no predictions") for one in parts]).numpy()
    first = len(said) - len(rows)
    slot_names = model.slots.default_names
    moves = Counter((row.class_name, slot_names[int(said[first + i].argmax())]) for i, row in enumerate(rows))
    named = {slot: name for name, slot in majority(moves).items() if NORMAL not in {slot, name}}
    plan = ClassPlan(slot_names, [named.get(slot, slot) for slot in slot_names], said.astype(np.float64))
    corrections = [Correction(row.image.key, (0.0, 0.0, 0.0, 0.0), row.class_name) for row in rows]
    plan.take(corrections, range(first, len(said)))
    refit(model, plan, features, appearance)
    number = 0
    for one in encoded:
        references = given(one.region_reference, "Examples hold no references")
        model.model.rejection.extend(references, one.region_image_index + number)
        number += len(one)
    return [model.model.classify_encoded(batch) for batch in batches]


def _cut(
    examples: list[LabelledImage], maps: Sequence[Path], score_range: tuple[float, float], settings: RegionSettings
) -> ExampleRegions:
    """Regions of some examples, in memory."""
    table = RegionTable([one.image for one in examples]).build(maps, score_range, settings)
    return ExampleRegions(table, [examples[image] for image in table.image_of])


def _encode(model: AnomalyNcd, datamodule: NcdDataModule, found: Sequence[ExampleRegions]) -> list[NcdBatch]:
    """Examples, described and predicted."""
    encoded = list[NcdBatch]()
    for table, _ in found:
        views = EvalImages(table, None, datamodule.image_size, model.model.describer.needs_whole_images)
        loader = DataLoader(views, datamodule.eval_batch_size, collate_fn=NcdBatch.collate)
        encoded += encode_images(model.model.describe, loader)
    return [model.model.classify_encoded(batch) for batch in encoded]
