# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""How well defective images are told from good ones: by the detector's score, by residuals, and by both.

    python benchmarks/residual_lengths.py --data ../shared/data \
        --weights ../shared/weights/deit_tiny_patch16_224.safetensors --output runs/ablation

AUROC of the images, each as anomalous as its most anomalous region. On the painted sets of ``ablation.py``, which are
made if they aren't in the folder, and on MTD-mini.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ablation import PAINTED, datamodule_of
from sklearn.metrics import roc_auc_score

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.region_table import RegionSettings
from anomalib_ncd.models.known_regions import encode_images
from anomalib_ncd.models.normal_comparison import compare_with_normal
from anomalib_ncd.models.normal_patches import LEAST_SCORE, NormalPatches

MEASURES = ("score", "longest residual", "mean residual", "score x longest residual")


def measure(model: AnomalyNcd, datamodule: NcdDataModule, seed: int) -> dict[str, float]:
    """AUROC of each measure."""
    compare_with_normal(model.eval(), datamodule, seed)
    whole = NcdBatch.collate(encode_images(model, datamodule.test_dataloader()))
    assert whole.region_feature is not None
    assert whole.region_reference is not None
    assert whole.class_id is not None
    score = whole.region_score.clamp(min=LEAST_SCORE).numpy()
    # Features have the root of the length, and the score's root stretches them.
    longest, mean = (
        NormalPatches.lengths(rows).square().numpy() for rows in (whole.region_feature, whole.region_reference)
    )
    image_index = whole.region_image_index.numpy()
    is_defective = whole.class_id.numpy() != datamodule.class_names.index("good")
    auroc = {}
    for name, values in zip(MEASURES, (score, longest, mean, score * longest), strict=True):
        by_image = np.full(len(is_defective), -np.inf)
        np.maximum.at(by_image, image_index, values)
        auroc[name] = float(roc_auc_score(is_defective, by_image))
    return auroc


def main() -> None:
    """Print a row per set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with mtd and mtd_anomaly_maps")
    parser.add_argument("--backbone", default="deit_tiny_patch16_224", help="offline for EfficientNet-Lite0")
    parser.add_argument("--weights", type=Path, help="weights of the backbone, but for offline")
    parser.add_argument("--output", type=Path, default=Path("runs/ablation"), help="folder of the painted sets")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    print(f"| set | {' | '.join(MEASURES)} |\n| --- |{' --- |' * len(MEASURES)}")
    for name in (*PAINTED, "MTD-mini"):
        rows = []
        for seed in options.seeds:
            work_dir = options.output / "work" / f"residuals {name}"
            datamodule = datamodule_of(
                name, None, normal=True, regions=RegionSettings(), options=options, work_dir=work_dir, seed=seed
            )
            datamodule.setup()
            model = AnomalyNcd(backbone=options.backbone, backbone_weights=options.weights, num_novel_classes=2)
            rows.append(list(measure(model, datamodule, seed).values()))
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in np.mean(rows, axis=0))} |", flush=True)


if __name__ == "__main__":
    main()
