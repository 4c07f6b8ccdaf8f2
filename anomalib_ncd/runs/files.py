# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The tables and pictures of a run, made from its predictions and made again under other names."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.metrics import facts
from anomalib_ncd.metrics.defects import UNLABELLED, count_found, defect_report, region_classes, touches
from anomalib_ncd.metrics.discovery import discovery_report, normal_report
from anomalib_ncd.models.checkpoints import write_class_names
from anomalib_ncd.models.clustering.clustering import cluster_features
from anomalib_ncd.regions.classes.prediction import RegionMerging, first_slots
from anomalib_ncd.regions.classes.results import ImageResult
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.regions.reading.maps import read_anomaly_map
from anomalib_ncd.regions.writing import write_image
from anomalib_ncd.results.corrections import FILE_NAME as CORRECTIONS_FILE
from anomalib_ncd.results.corrections import read_corrections, rows_of_results
from anomalib_ncd.results.export import ExportFormat, export_results
from anomalib_ncd.results.run_results import RunResults
from anomalib_ncd.results.tables import write_tables
from anomalib_ncd.runs import folder
from anomalib_ncd.settings import MIN_NORMAL_IMAGES
from anomalib_ncd.visualization.gallery import draw_gallery, table_rows
from anomalib_ncd.visualization.report import map_regions, write_report
from anomalib_ncd.visualization.report.crops import sheets_of_report

MAX_IMAGES = 64  # of more images and maps, so many are looked at


def discovery_facts(batch: NcdBatch, datamodule: NcdDataModule) -> dict[str, float]:
    """What is known once classes were discovered, under the names of :data:`~anomalib_ncd.metrics.facts.FACTS`.

    Numbers without meaning for the run are left out.
    """
    known = {**_map_facts(datamodule), **_cluster_facts(batch)}
    num_good = len(datamodule.normal_records)
    if 0 < num_good < MIN_NORMAL_IMAGES and batch.region_head_class_id is None:
        known["good_images"] = num_good / MIN_NORMAL_IMAGES
    return {name: value for name, value in known.items() if not math.isnan(value)}


def images_with_region(batch: NcdBatch) -> float:
    """Share of the images that have a region with a mask; NaN without images."""
    found = batch.region_image_index[batch.region_area > 0].unique()
    return len(found) / len(batch) if len(batch) else float("nan")


def _map_facts(datamodule: NcdDataModule) -> dict[str, float]:
    """Facts of maps, on some of the images."""
    table = datamodule.region_table()
    chosen = _some(len(table.images))
    maps = [read_anomaly_map(datamodule.map_paths[index]) for index in chosen]
    images = [read_image(table.images[index].path, table.settings.bit_depth) for index in chosen]
    cells = np.stack([facts.map_cells(anomaly_map) for anomaly_map in maps])
    found = {
        "own_image": facts.own_image_share(np.stack([facts.image_cells(image) for image in images]), cells),
        "peak_height": facts.peak_height(maps),
        "same_place": facts.same_place_share(cells),
    }
    paths = datamodule.normal_map_paths
    normal = [read_anomaly_map(paths[index]) for index in _some(len(paths))]
    if normal:
        cells_of_normal = np.stack([facts.map_cells(one) for one in normal])
        peaks, normal_peaks = ([one.max() for one in some] for some in (maps, normal))
        found["same_place_as_normal"] = facts.same_place_share(cells, cells_of_normal)
        found["detector_separation"] = facts.detector_separation(peaks, normal_peaks)
    return found


def _cluster_facts(batch: NcdBatch) -> dict[str, float]:
    """Agreement of the heads of a trained network, or of clusters of resamples, in the space that was clustered."""
    heads = batch.region_head_class_id
    if heads is not None and heads.shape[1] > 1:
        return {"head_agreement": facts.pairwise_agreement(heads.T.numpy())}
    if batch.region_feature is None or batch.region_pred_class_id is None:
        return {}
    features = batch.region_feature
    num_used = len(batch.region_pred_class_id.unique())
    if num_used < 2:
        return {}
    clusterings = facts.resampled_clusterings(
        features.numpy(), lambda part: cluster_features(torch.from_numpy(part), min(num_used, len(part)))
    )
    return {"cluster_agreement": facts.pairwise_agreement(clusterings)}


def _some(count: int) -> list[int]:
    """Some of so many, in order; the same ones each time."""
    return sorted(np.random.default_rng(0).permutation(count)[:MAX_IMAGES].tolist())


def gather_results(
    batches: Sequence[NcdBatch],
    datamodule: NcdDataModule,
    merging: RegionMerging,
    output: Path,
    num_classes_estimate: dict[str, Any] | None = None,
) -> RunResults:
    """Put everything that a run predicted into one place, which :func:`write_run_files` takes.

    ``merging`` has the names that discovery gives; ``num_classes_estimate`` is plain data.
    """
    table = datamodule.region_table()
    batch = NcdBatch.collate(batches).without_pixels()
    found = _take_defects(batch, datamodule)
    key_of = {str(record.path): record.key for record in table.images}
    shown = batch.region_feature if batch.region_feature is not None else batch.region_class_probabilities
    return RunResults(
        batch=batch,
        image_keys=[key_of[path] for path in batch.image_path],
        slot_names=list(merging.class_names),
        regions_folder=regions_folder_of(table, output),
        region_position=map_regions(np.asarray(shown)),
        label_names=list(datamodule.class_names) if datamodule.class_ids is not None else [],
        normal_slot=merging.normal_slot,
        merging_temperature=merging.temperature,
        normal_label=datamodule.normal_label,
        bit_depth=table.settings.bit_depth,
        num_classes_estimate=num_classes_estimate,
        facts=discovery_facts(batch, datamodule),
        found_defects=found,
    )


def _take_defects(batch: NcdBatch, datamodule: NcdDataModule) -> dict[str, int]:
    """Compare regions with labelled defects: set the true classes of regions and images, count what was found."""
    if datamodule.defects is None:
        return {}
    table, names = datamodule.region_table(), datamodule.class_names
    normal = names.index(datamodule.normal_label)
    defects_of = {str(record.path): of_image for record, of_image in zip(table.images, datamodule.defects, strict=True)}
    classes = torch.full_like(batch.region_area, UNLABELLED)
    sets = torch.zeros(len(batch), len(names), dtype=torch.bool)
    rows, found = np.array(table_rows(batch, table), dtype=int), Counter[str]()
    for image, path in enumerate(batch.image_path):
        ids = [names.index(defect.class_name) for defect in defects_of[path]]
        sets[image, ids] = True
        own = np.flatnonzero((batch.region_image_index == image).numpy() & (batch.region_area > 0).numpy())
        masks = [table.load(int(row))[1] for row in rows[own]]
        touched = touches([table.rows[row].box_xyxy for row in rows[own]], masks, defects_of[path])
        classes[own] = torch.from_numpy(region_classes(touched, ids, normal))
        found.update(count_found(touched))
    batch.update(region_class_id=classes, class_sets=sets[:, [i for i in range(len(names)) if i != normal]])
    return dict(found)


def regions_folder_of(table: RegionTable, output: Path) -> str:
    """Folder of a table's crops as a run's results name it: relative to the run where it lies inside."""
    regions = Path(table.folder or output / "regions").absolute()
    inside = regions.is_relative_to(output.absolute())
    return os.path.relpath(regions, output.absolute()) if inside else str(regions)


def write_run_files(
    output: Path, results: RunResults, class_names: Sequence[str], report_before: Path | None = None
) -> tuple[RunResults, dict[str, Any]]:
    """Write tables, scores, gallery and report of a run, and put the names into its checkpoint if there is one.

    Crops are taken over from ``report_before``, a report of the same regions. Returns the results under these names,
    and what ``metrics.json`` says: ``facts`` always, scores where labels are known.
    """
    table = RegionTable.read(results.images, output / results.regions_folder)
    images = results.image_results(class_names)
    results = results.showing(images)
    write_tables(output, images)
    # From what results.npz holds, so that it is there again, and true again, under other names.
    told = facts.tell_facts({**results.facts, "images_with_region": images_with_region(results.batch)})
    metrics = {**(score(results, class_names, images) or {}), "facts": told}
    folder.write_json(output / folder.METRICS_FILE, metrics)
    if results.num_classes_estimate is not None:
        folder.write_json(output / folder.NUM_CLASSES_FILE, results.num_classes_estimate)
    write_image(output / "gallery.png", draw_gallery([results.batch], class_names, table))
    rows = table_rows(results.batch, table)
    write_report(
        output / folder.REPORT_FILE,
        results,
        class_names,
        images,
        lambda region: table.load(rows[region]),
        metrics,
        peaks_xy=table.peaks_xy,
        find_more=_find_more(table),
        corrected=_corrected(output, results),
        sheets=None if report_before is None else sheets_of_report(report_before),
    )
    if (output / folder.CHECKPOINT_FILE).is_file():
        write_class_names(output / folder.CHECKPOINT_FILE, class_names)
    return results, metrics


def _find_more(table: RegionTable) -> str:
    """What helps where a defect was not found, by how it was looked for."""
    low, high = table.score_range
    if table.settings.method == "threshold":
        return f"a --regions.threshold below {table.settings.threshold:g}"
    if table.settings.method != "elements":
        return "other maps"
    return (
        f'a lower upper end of --score_range "[{low:g}, {high:g}]", whose middle, {(low + high) / 2:g}, is what the '
        "highest point has to exceed"
    )


def _corrected(output: Path, results: RunResults) -> list[int]:
    """Regions that corrections of the run's folder speak of."""
    if not (output / CORRECTIONS_FILE).is_file():
        return []
    rows = rows_of_results(read_corrections(output / CORRECTIONS_FILE).regions, results)
    return [row for row in rows if row is not None]


def export_run(run: str | Path, output: str | Path, kind: ExportFormat = "coco", *, copy: bool = False) -> None:
    """Write a finished run for other tools, see :func:`~anomalib_ncd.results.export.export_results`.

    ``FileNotFoundError`` if the run is not finished, or crops or images are gone.
    """
    run = Path(run)
    results = RunResults.load(run / folder.RESULTS_FILE)
    names = folder.notes(run).get("names") or results.slot_names
    table = RegionTable.read(results.images, run / results.regions_folder)
    export_results(results, names, table, output, kind, copy=copy)


def score(results: RunResults, class_names: Sequence[str], images: Sequence[ImageResult]) -> dict[str, Any] | None:
    """Scores of images, regions and labelled defects, ``None`` without labels; slots of one name are one class."""
    if not results.label_names or results.batch.class_id is None:
        return None
    # An image without region and class, -1, is of a class without name.
    names, slots = [*class_names, ""], np.array([*first_slots(class_names), len(class_names)])
    reports = {}
    for level, prefix in (("image", ""), ("region", "region_")):
        preds = slots[getattr(results.batch, f"{prefix}pred_class_id").numpy()]
        target = getattr(results.batch, f"{prefix}class_id").numpy()
        reports[level] = discovery_report(preds, target, names, results.label_names, results.normal_label)
        if results.normal_slot is not None and results.normal_label in results.label_names:
            # Where the mask is empty the detector raised no alarm; such regions stand for whole images.
            counted = (target >= 0) & (level == "image" or results.batch.region_area.numpy() > 0)
            is_good = target[counted] == results.label_names.index(results.normal_label)
            reports[level]["normal"] = normal_report(preds[counted] == slots[results.normal_slot], is_good)
    if results.found_defects and results.batch.class_sets is not None:
        target = results.batch.class_sets.numpy()
        reports["defects"] = defect_report(results.found_defects, _class_sets(results, class_names, images), target)
    return reports


def _class_sets(results: RunResults, class_names: Sequence[str], images: Sequence[ImageResult]) -> np.ndarray:
    """Which classes each image has, ``(N, K)`` bool; *normal* is none, and slots of one name are one."""
    normal = None if results.normal_slot is None else class_names[results.normal_slot]
    kinds = [name for name in dict.fromkeys(class_names) if name != normal]
    rows = [[kind in image.classes for kind in kinds] for image in images]
    return np.array(rows, dtype=bool).reshape(len(images), -1)
