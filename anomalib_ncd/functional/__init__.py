# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Pure functions on arrays and tensors; without lightning, without anomalib."""

from anomalib_ncd.functional.matching import clustering_accuracy, match_classes, matched_macro_f1, matched_predictions
from anomalib_ncd.functional.mebin import (
    BinarizedMap,
    binarize,
    binarize_batch,
    component_counts,
    fit_score_range,
    normalize_anomaly_map,
    select_interval,
)
from anomalib_ncd.functional.named_classes import first_slots, named_probabilities, predict_classes
from anomalib_ncd.functional.region_merging import merge_regions, novel_probabilities, relative_merging_temperature
from anomalib_ncd.functional.regions import Region, crop, extract_regions, region_boxes, region_scores

__all__ = [
    "BinarizedMap",
    "Region",
    "binarize",
    "binarize_batch",
    "clustering_accuracy",
    "component_counts",
    "crop",
    "extract_regions",
    "first_slots",
    "fit_score_range",
    "match_classes",
    "matched_macro_f1",
    "matched_predictions",
    "merge_regions",
    "named_probabilities",
    "normalize_anomaly_map",
    "novel_probabilities",
    "predict_classes",
    "region_boxes",
    "region_scores",
    "relative_merging_temperature",
    "select_interval",
]
