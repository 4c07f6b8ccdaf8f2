# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What corrections bring: a simulated user names the classes, then says the true class of some regions.

Naming matches clusters to labels as well as can be. Images with a corrected region are left out of the score, of
naming and of refining alike. Images are looked at in twenty random orders, and of each the region is corrected that
decides its class, as labels are those of images; or regions in the order that the report proposes, ten at a time, each
ten followed by a refinement. Of DeepPCB, regions themselves are labelled and scored. Images without a region are
a class as well.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scores
import speed
import torch
from cases import Case, Setup

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.metrics.discovery import match_classes
from anomalib_ncd.models.clustering.refinement import constrained, probabilities_of, refine_prototypes
from anomalib_ncd.models.encoded_regions import given
from anomalib_ncd.regions.classes.prediction import merge_image, merging_temperature_of
from anomalib_ncd.regions.reading.listing import ImageFile
from anomalib_ncd.results.label_order import doubt_of, label_order
from anomalib_ncd.results.run_results import RunResults

NUM_ORDERS, ROUND = 20, 10
NUMBERS = (5, 10, 20, 40)
NUM_REGIONS, NUM_CORRECTIONS, JITTER = 5000, 500, 0.02


@dataclass
class Simulation:
    """Regions of a run and what a user knows of them.

    Attributes:
        features: ``(R, D)``.
        appearance: ``(R, F)``.
        prior: ``(R, K)``, what the named clusters say, a column for each true class first.
        image_of: ``(R,)``, what is scored together.
        areas: ``(R,)``.
        temperatures: T of region merging, one for each image.
        truth: True class of each image.
        empty: True class that images without a region are said to be of; -1 for none.
    """

    features: np.ndarray
    appearance: np.ndarray
    prior: np.ndarray
    image_of: np.ndarray
    areas: np.ndarray
    temperatures: np.ndarray
    truth: np.ndarray
    empty: int = -1

    def accuracy(self, probabilities: np.ndarray, images: np.ndarray) -> float:
        """Share of images whose class is right."""
        right = [self._class_of(probabilities, image) == self.truth[image] for image in images.tolist()]
        return float(np.mean(right))

    def deciding(self) -> np.ndarray:
        """The largest region of each image that has some."""
        order = np.lexsort((-self.areas, self.image_of))
        return order[np.unique(self.image_of[order], return_index=True)[1]]

    def _class_of(self, probabilities: np.ndarray, image: int) -> int:
        """Class of an image after region merging."""
        own = self.image_of == image
        if not own.any():
            return self.empty
        return int(merge_image(probabilities[own], self.areas[own], float(self.temperatures[image])).argmax())

    def allowed(self, corrected: np.ndarray) -> np.ndarray:
        """What corrections of these regions allow."""
        allowed = np.ones(self.prior.shape, dtype=bool)
        allowed[corrected] = np.arange(self.prior.shape[1]) == self.truth[self.image_of[corrected]][:, None]
        return allowed

    def refined(self, corrected: np.ndarray) -> np.ndarray:
        """Class probabilities after corrections of these regions."""
        allowed = self.allowed(corrected)
        prototypes = refine_prototypes(self.features, self.prior, allowed, self.appearance)
        return constrained(probabilities_of(self.features, prototypes), allowed)

    def scores(self, corrected: np.ndarray) -> tuple[float, float]:
        """Accuracy of naming alone, and of refining, over the images without a correction."""
        images = np.setdiff1d(np.arange(len(self.truth)), self.image_of[corrected])
        return self.accuracy(self.prior, images), self.accuracy(self.refined(corrected), images)

    def proposed(self, count: int) -> Iterator[np.ndarray]:
        """Regions in the order that reports propose, so far, each time that the run is refined."""
        chosen: list[int] = []
        while len(chosen) < count:
            corrected = np.array(chosen, dtype=int)
            probabilities = self.refined(corrected) if chosen else self.prior
            labelled = np.isin(np.arange(len(self.features)), corrected)
            more = label_order(self.features, doubt_of(probabilities), self.image_of, ROUND, labelled)
            if not more:
                return
            chosen += more
            yield np.array(chosen)


def corrections(case: Case, setup: Setup) -> dict[str, float]:
    """Accuracy of images by the number of corrections, in random and in proposed order."""
    simulation = _simulation(case, setup)
    found: dict[str, list[float]] = defaultdict(list)
    everything = np.arange(len(simulation.truth))
    found["naming"].append(simulation.accuracy(simulation.prior, everything))
    deciding = simulation.deciding()
    most = min(max(NUMBERS), len(deciding) // 2)
    for order in range(NUM_ORDERS):
        regions = np.random.default_rng(order).permutation(deciding)
        for number in (number for number in NUMBERS if number <= most):
            naming, refined = simulation.scores(regions[:number])
            found[f"naming_{number}"].append(naming)
            found[f"random_{number}"].append(refined)
    for chosen in simulation.proposed(most // ROUND * ROUND):
        if len(chosen) in NUMBERS:
            naming, refined = simulation.scores(chosen)
            found[f"naming_proposed_{len(chosen)}"].append(naming)
            found[f"proposed_{len(chosen)}"].append(refined)
    return {name: float(np.mean(values)) for name, values in found.items()}


def named(probabilities: np.ndarray, classes: np.ndarray, truth: np.ndarray, empty: int = -1) -> tuple[np.ndarray, int]:
    """What clusters say once they are named: a column for each true class, then the clusters that have no name.

    With it comes the true class of the class `empty`, -1 for none.
    """
    num_true, num_slots = int(truth.max()) + 1, probabilities.shape[1]
    names = match_classes(classes, truth)
    by_name = np.zeros((len(probabilities), num_true + num_slots))
    for slot in range(num_slots):
        by_name[:, names.get(slot, num_true + slot)] += probabilities[:, slot]
    return by_name, names.get(empty, -1)


def _simulation(case: Case, setup: Setup) -> Simulation:
    """A run whose images are labelled; of DeepPCB, the regions that lie on a labelled box, each by itself."""
    folder = setup.work / "run"
    scores.run(case, setup, folder)  # a finished one is taken up
    results = RunResults.load(folder / "results.npz")
    batch, fixed = results.batch, results.merging_temperature
    probabilities = given(batch.region_class_probabilities, "no predictions").numpy()
    features = given(batch.region_feature, "no features").numpy()
    appearance = given(batch.region_appearance, "no looks").numpy()
    if case.data == "deeppcb":
        truth = scores.truth_of_boxes(batch, Path(batch.image_path[0]).parents[1] / "regions.csv")
        on_box = np.flatnonzero(truth >= 0)
        classes, ones = given(batch.region_pred_class_id, "no predictions").numpy(), np.ones(len(on_box), dtype=int)
        by_name, _ = named(probabilities[on_box], classes[on_box], truth[on_box])
        own = np.arange(len(on_box))
        of_boxes = features[on_box], appearance[on_box], by_name
        return Simulation(*of_boxes, own, ones, ones.astype(float), truth[on_box])
    truth, classes = (given(part, "no labels").numpy() for part in (batch.class_id, batch.pred_class_id))
    by_name, empty = named(probabilities, classes, truth, -1 if results.normal_slot is None else results.normal_slot)
    return Simulation(
        features,
        appearance,
        by_name,
        batch.region_image_index.numpy(),
        batch.region_area.numpy(),
        np.array([fixed or merging_temperature_of((height, width)) for height, width in batch.image_size.tolist()]),
        truth,
        empty,
    )


def refine_seconds(case: Case, setup: Setup) -> dict[str, float]:
    """Seconds of the processor of `refine` with 5,000 regions and 500 corrections, imports included."""
    run, big = setup.work / "run", setup.work / "big"
    scores.run(case, setup, run)
    results = _repeated(run, big)
    batch = results.batch
    truth = given(batch.region_class_id, "no labels").tolist()
    chosen = np.random.default_rng(0).choice(len(truth), NUM_CORRECTIONS, replace=False).tolist()
    regions = [
        {
            "image": results.image_keys[int(batch.region_image_index[region])],
            "box": batch.region_box_xyxy[region].tolist(),
            "class": results.label_names[truth[region]],
        }
        for region in chosen
    ]
    file = setup.work / "corrections.json"
    file.write_text(json.dumps({"regions": regions}), encoding="utf-8")
    flags = ["refine", str(big.resolve()), "--corrections", str(file.resolve()), "--output"]
    return speed.compare(case, setup, lambda output: [*flags, str(output.resolve())], 1)


def _repeated(run: Path, output: Path) -> RunResults:
    """A run whose images come again, their features a little different, until there are regions enough."""
    results = RunResults.load(run / "results.npz")
    times = -(-NUM_REGIONS // len(results.batch.region_area))
    keys = [[f"{key}_{number}" for key in results.image_keys] for number in range(times)]
    every = [key for own in keys for key in own]
    images = [ImageFile(image.path, key) for image, key in zip(results.images * times, every, strict=True)]
    before, after = RegionTable.read(results.images, run / "regions"), RegionTable(images, output / "regions")
    (output / "regions").mkdir(parents=True)
    shutil.copy(run / "regions" / "settings.json", output / "regions")
    for own in keys:
        after.adopt(before, before.images, own)
    batch = NcdBatch.collate([replace(results.batch) for _ in range(times)])
    features = given(batch.region_feature, "no features")
    noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    batch.region_feature = features + JITTER * features.std() * noise
    position = np.tile(results.region_position, (times, 1))
    many = replace(results, batch=batch, image_keys=every, regions_folder="regions", region_position=position)
    many.save(output / "results.npz")
    shutil.copy(run / "model.ckpt", output)
    return many
