# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""How well defective images are told from good ones: by the detector's score, residuals, both, and whole images.

    python benchmarks/residual_lengths.py --data ../shared/data \
        --weights ../shared/weights/deit_tiny_patch16_224.safetensors --output runs/ablation

AUROC of the images, each as anomalous as its most anomalous region. On the painted sets of ``ablation.py``, which are
made if they aren't in the folder, and on MTD-mini.
"""

from __future__ import annotations

import numpy as np
from ablation import PAINTED, datamodule_of
from discovery import build_parser
from sklearn.metrics import roc_auc_score

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.normal_regions import MAX_NORMAL_REGIONS
from anomalib_ncd.models.describer import NormalResiduals, residual_lengths, stretched_residuals
from anomalib_ncd.models.encoded_regions import encode_images
from anomalib_ncd.regions.settings import RegionSettings

MEASURES = ("score", "longest residual", "mean residual", "score x longest residual", "whole image")


def measure(model: AnomalyNcd, datamodule: NcdDataModule, seed: int) -> dict[str, float]:
    """AUROC of each measure."""
    describer, regions = model.eval().model.describer, datamodule.normal_regions(MAX_NORMAL_REGIONS)
    if isinstance(describer, NormalResiduals) and regions is not None:
        describer.fit(regions, [record.path for record in datamodule.normal_records], seed)
    whole = NcdBatch.collate(encode_images(model.model.describe, datamodule.test_dataloader()))
    assert whole.region_feature is not None
    assert whole.region_reference is not None
    assert whole.class_id is not None
    stretched = stretched_residuals(whole.region_feature, whole.region_score)
    rows_by_measure = (whole.region_feature, whole.region_reference, stretched)
    # Lengths are roots, which leave the order as it is.
    lengths = (residual_lengths(rows) for rows in rows_by_measure)
    measured = [whole.region_score, *lengths, whole.region_feature[:, -2]]
    image_index = whole.region_image_index.numpy()
    is_defective = whole.class_id.numpy() != datamodule.class_names.index("good")
    auroc = {}
    for name, values in zip(MEASURES, measured, strict=True):
        by_image = np.full(len(is_defective), -np.inf)
        np.maximum.at(by_image, image_index, values.numpy())
        auroc[name] = float(roc_auc_score(is_defective, by_image))
    return auroc


def main() -> None:
    """Print a row per set."""
    parser = build_parser(__doc__, "runs/ablation")
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
            model = AnomalyNcd(options.backbone, options.weights, num_novel_classes=2, describer="normal_residuals")
            rows.append(list(measure(model, datamodule, seed).values()))
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in np.mean(rows, axis=0))} |", flush=True)


if __name__ == "__main__":
    main()
