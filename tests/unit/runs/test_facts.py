# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.metrics.facts import tell_facts
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.runs.cluster import discover_by_clustering
from anomalib_ncd.runs.facts import discovery_facts, images_with_region
from anomalib_ncd.settings import TrainingSettings
from anomalib_ncd.synthetic.plates import make_image, simulate_anomaly_map

USELESS = {
    "of other images": lambda maps, rng: [maps[number - 1] for number in range(len(maps))],
    "noise": lambda maps, rng: [rng.random(one.shape) for one in maps],
    "constant": lambda maps, rng: [np.ones(one.shape) for one in maps],
    "inverted": lambda maps, rng: [1 - one for one in maps],
}


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    """Folder of 15 drawn plates, and their maps."""
    folder, rng = tmp_path_factory.mktemp("plates"), np.random.default_rng(0)
    maps = []
    for number, kinds in enumerate([("scratch",), ("stain",), ("dent",)] * 5):
        image, masks = make_image(kinds, rng)
        cv2.imwrite(str(folder / f"{number:02d}.png"), cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA))
        anomaly_map = simulate_anomaly_map(np.any(list(masks.values()), axis=0), rng).astype(np.float32)
        maps.append(cv2.resize(anomaly_map / anomaly_map.max(), (128, 128)))
    return folder, maps


def batch_and_facts(plates, maps, folder, method="elements"):
    """Predictions of a run on the plates with these maps, and its facts."""
    for number, anomaly_map in enumerate(maps):
        np.save(folder / f"{number:02d}.npy", anomaly_map.astype(np.float32))
    torch.manual_seed(0)
    settings = TrainingSettings(mask_layers=3)
    model = AnomalyNcd(backbone="test_vit", pretrained=False, training=settings, num_novel_classes=3)
    data = NcdDataModule(plates[0], folder, regions=RegionSettings(method=method))
    batch = NcdBatch.collate(discover_by_clustering(model, data))
    return batch, {**discovery_facts(batch, data), "images_with_region": images_with_region(batch)}


def off(facts):
    return {name for name, fact in tell_facts(facts).items() if fact["advice"]}


def test_a_good_detector_has_nothing_off(plates, tmp_path):
    batch, facts = batch_and_facts(plates, plates[1], tmp_path)
    assert not off(facts) - {"cluster_agreement"}
    assert {"own_image", "peak_height", "same_place", "cluster_agreement"} <= set(facts)
    assert images_with_region(batch) == facts["images_with_region"] > 0.9


@pytest.mark.parametrize("method", ["mebin", "elements"])
@pytest.mark.parametrize("kind", USELESS)
def test_a_useless_detector_is_named(plates, tmp_path, kind, method):
    maps = USELESS[kind](plates[1], np.random.default_rng(0))
    if (kind, method) == ("constant", "elements"):
        with pytest.raises(ValueError, match="No region was found in any of 15 images"):
            batch_and_facts(plates, maps, tmp_path, method)
        return
    _, facts = batch_and_facts(plates, maps, tmp_path, method)
    named = off(facts)
    assert "own_image" in named
    assert ("peak_height" in named) == (kind in {"constant", "inverted"})
    assert "images_with_region" in named or kind != "constant"


def test_normal_maps_tell_more(plates, tmp_path):
    data = NcdDataModule(plates[0], tmp_path, normal_maps=tmp_path / "normal", regions=RegionSettings("elements"))
    (tmp_path / "normal").mkdir()
    for number, anomaly_map in enumerate(plates[1]):
        np.save(tmp_path / f"{number:02d}.npy", anomaly_map)
        np.save(tmp_path / "normal" / f"{number}.npy", anomaly_map[::-1] / 2)
    batch, _ = batch_and_facts(plates, plates[1], tmp_path)
    facts = discovery_facts(batch, data)
    assert facts["detector_separation"] > 0.9
    assert facts["same_place_as_normal"] < 0.2


def test_heads_of_a_trained_network_are_compared(plates, tmp_path):
    batch, facts = batch_and_facts(plates, plates[1], tmp_path)
    slots = batch.region_pred_class_id
    data = NcdDataModule(plates[0], tmp_path, regions=RegionSettings("elements"))
    trained = discovery_facts(replace(batch, region_head_class_id=torch.stack([slots, slots], dim=1)), data)
    assert trained["head_agreement"] == 1
    assert "cluster_agreement" in facts
    assert "cluster_agreement" not in trained
    one = discovery_facts(replace(batch, region_pred_class_id=torch.zeros_like(slots)), data)
    assert "cluster_agreement" not in one
