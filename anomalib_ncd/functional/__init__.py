# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Pure functions on arrays and tensors; without lightning, without anomalib.

What prediction on the line needs (MEBin, regions, views, the merging of one image) runs on NumPy and OpenCV alone. So
names are imported on first use: torch comes with the functions on tensors, SciPy with the matching of classes.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anomalib_ncd.functional.image_classes import classes_of_images, counting_regions
    from anomalib_ncd.functional.image_merging import (
        choose_classes,
        merge_image,
        merging_temperature_of,
        region_weights,
    )
    from anomalib_ncd.functional.matching import (
        clustering_accuracy,
        match_classes,
        matched_macro_f1,
        matched_predictions,
    )
    from anomalib_ncd.functional.mebin import (
        BinarizedMap,
        binarize,
        binarize_batch,
        component_counts,
        fit_score_range,
        normalize_anomaly_map,
        select_interval,
    )
    from anomalib_ncd.functional.named_classes import named_probabilities, predict_classes
    from anomalib_ncd.functional.neighbours import left_out_similarity, neighbour_similarity
    from anomalib_ncd.functional.normal_cluster import find_cluster_of_normal, find_normal_cluster, with_slot_first
    from anomalib_ncd.functional.peak import peak_mask
    from anomalib_ncd.functional.region_merging import merge_regions, novel_probabilities, relative_merging_temperature
    from anomalib_ncd.functional.regions import Region, crop, extract_regions, region_boxes, region_scores
    from anomalib_ncd.functional.rejection import (
        attained_false_reject_rate,
        check_false_reject_rate,
        is_image_unknown,
        rejection_threshold,
    )
    from anomalib_ncd.functional.resampling import resize_antialiased
    from anomalib_ncd.functional.slots import first_slots
    from anomalib_ncd.functional.views import eval_view

_NAMES_OF = {
    "image_classes": ("classes_of_images", "counting_regions"),
    "image_merging": ("choose_classes", "merge_image", "merging_temperature_of", "region_weights"),
    "matching": ("clustering_accuracy", "match_classes", "matched_macro_f1", "matched_predictions"),
    "mebin": (
        "BinarizedMap",
        "binarize",
        "binarize_batch",
        "component_counts",
        "fit_score_range",
        "normalize_anomaly_map",
        "select_interval",
    ),
    "named_classes": ("named_probabilities", "predict_classes"),
    "neighbours": ("left_out_similarity", "neighbour_similarity"),
    "normal_cluster": ("find_cluster_of_normal", "find_normal_cluster", "with_slot_first"),
    "peak": ("peak_mask",),
    "region_merging": ("merge_regions", "novel_probabilities", "relative_merging_temperature"),
    "regions": ("Region", "crop", "extract_regions", "region_boxes", "region_scores"),
    "rejection": (
        "attained_false_reject_rate",
        "check_false_reject_rate",
        "is_image_unknown",
        "rejection_threshold",
    ),
    "resampling": ("resize_antialiased",),
    "slots": ("first_slots",),
    "views": ("eval_view",),
}
_HOMES = {name: module for module, names in _NAMES_OF.items() for name in names}

__all__ = [
    "BinarizedMap",
    "Region",
    "attained_false_reject_rate",
    "binarize",
    "binarize_batch",
    "check_false_reject_rate",
    "choose_classes",
    "classes_of_images",
    "clustering_accuracy",
    "component_counts",
    "counting_regions",
    "crop",
    "eval_view",
    "extract_regions",
    "find_cluster_of_normal",
    "find_normal_cluster",
    "first_slots",
    "fit_score_range",
    "is_image_unknown",
    "left_out_similarity",
    "match_classes",
    "matched_macro_f1",
    "matched_predictions",
    "merge_image",
    "merge_regions",
    "merging_temperature_of",
    "named_probabilities",
    "neighbour_similarity",
    "normalize_anomaly_map",
    "novel_probabilities",
    "peak_mask",
    "predict_classes",
    "region_boxes",
    "region_scores",
    "region_weights",
    "rejection_threshold",
    "relative_merging_temperature",
    "resize_antialiased",
    "select_interval",
    "with_slot_first",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import a function's module on first use."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
