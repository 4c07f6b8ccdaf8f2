# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Detectors that a run could fit itself: how well they find defects, how long they take, what classes they lead to."""

from __future__ import annotations

import time
from typing import Any

import data_sets
import numpy as np
from anomalib.models import AnomalibModule, Padim
from cases import Case, Setup
from sklearn.metrics import roc_auc_score

from anomalib_ncd import AnomalyNcd, NcdDataModule, discover
from anomalib_ncd.data.detector_maps import predict_anomaly_maps
from anomalib_ncd.models.encoders.hub import OFFLINE_NETWORK
from anomalib_ncd.models.offline_detector import LAYERS, SmallPatchcore, give_offline_weights
from anomalib_ncd.regions.reading.listing import list_images
from anomalib_ncd.runs.detector import fit_detector


def build(kind: str) -> AnomalibModule:
    """A detector on EfficientNet-Lite0, not fitted."""
    layers = ("blocks.1", *LAYERS) if kind == "patchcore_fine" else LAYERS
    options: dict[str, Any] = {"backbone": OFFLINE_NETWORK, "layers": list(layers), "pre_trained": False}
    options |= {"evaluator": False, "visualizer": False}
    detector = Padim(n_features=100, **options) if kind == "padim" else SmallPatchcore(num_neighbors=1, **options)
    give_offline_weights(detector)
    return detector


def measure(kind: str, case: Case, setup: Setup) -> dict[str, float]:
    """AUROC of images by their highest score, seconds of the processor, and scores of the classes from its maps."""
    arguments = data_sets.datamodule_arguments(case, setup.data, setup.work)
    images = list_images(arguments["images"], arguments.get("image_list"))
    good = list_images(arguments["normal_images"])
    start = time.process_time()
    detector = fit_detector(build(kind), good, setup.work / kind, accelerator="cpu")
    fitted = time.process_time()
    maps = predict_anomaly_maps(detector, images, setup.work / kind / "maps", device="cpu")
    predicted = time.process_time()
    is_defect = [image.folder_name != "good" for image in images]
    peaks = [float(np.load(file).max()) for file in maps]
    arguments["anomaly_maps"] = setup.work / kind / "maps"
    model = AnomalyNcd("offline", num_novel_classes=data_sets.num_classes(case))
    datamodule = NcdDataModule(**arguments, seed=setup.seed)
    found = discover(model, datamodule, setup.work / kind / "run", "cluster")["image"]
    return {
        "good_images": len(good),
        "auroc": float(roc_auc_score(is_defect, peaks)),
        "fit_s": fitted - start,
        "predict_ms": 1000 * (predicted - fitted) / len(images),
        "nmi": found["nmi"],
        "accuracy": found["accuracy"],
    }
