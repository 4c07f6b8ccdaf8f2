# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""How well regions of new kinds are told from regions of known ones, each kind left out in turn.

For every kind: images of the other kinds are split in halves; one half is the run, whose regions fix centres and
threshold; AUROC is that of the left-out kind's regions against the regions of the other half. Averages are over kinds
and splits. `generated` compares scores on drawn plates, `mtd` reports the chosen one on Magnetic Tile Defect.

    python benchmarks/unknown.py generated --weights ../shared/weights/deit_tiny_patch16_224.safetensors
    python benchmarks/unknown.py mtd --data ../shared/data \
        --weights ../shared/weights/deit_tiny_patch16_224.safetensors
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score
from torch import Tensor

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.normal_regions import MAX_NORMAL_REGIONS
from anomalib_ncd.models.clustering.clustering import cluster_centres, cluster_features
from anomalib_ncd.models.describer import DescriberKind, NormalResiduals
from anomalib_ncd.models.encoded_regions import encode_images
from anomalib_ncd.models.heads import unit_rows
from anomalib_ncd.models.rejection import RegionRejection
from anomalib_ncd.synthetic.plates import DEFECT_KINDS, generate_dataset

# Takes features of the run, features of other regions and the number of classes; the larger, the less known.
Score: TypeAlias = Callable[[Tensor, Tensor, int], Tensor]
RATES = (0.02, 0.05)


@dataclass(frozen=True)
class Regions:
    """Regions with what is known of them.

    Attributes:
        features: By name: ``"last"`` of the whole encoder, ``"frozen"`` of the part that is never trained.
        image: Number of the image of each region.
        label: Number of its true class.
        names: Names of the true classes.
    """

    features: dict[str, Tensor]
    image: np.ndarray
    label: np.ndarray
    names: list[str]


@dataclass(frozen=True)
class Trial:
    """One kind left out.

    Attributes:
        kind: The kind.
        run: Regions of the run.
        held_out: Regions of the other images of known kinds.
        new: Regions of the kind that was left out.
    """

    kind: str
    run: np.ndarray
    held_out: np.ndarray
    new: np.ndarray


def encode(model: AnomalyNcd, datamodule: NcdDataModule) -> Regions:
    """Features of all regions of a datamodule, compared with its normal images if it has any."""
    describer, regions = model.eval().model.describer, datamodule.normal_regions(MAX_NORMAL_REGIONS)
    if isinstance(describer, NormalResiduals) and regions is not None:
        describer.fit(regions, [record.path for record in datamodule.normal_records])
    whole = NcdBatch.collate(encode_images(model.model.describe, datamodule.test_dataloader()))
    assert whole.region_feature is not None
    assert whole.region_reference is not None
    assert whole.region_class_id is not None
    return Regions(
        {"last": whole.region_feature, "frozen": whole.region_reference},
        whole.region_image_index.numpy(),
        whole.region_class_id.numpy(),
        datamodule.class_names,
    )


def trials(regions: Regions, num_splits: int, *, one_known: bool = False) -> Iterator[Trial]:
    """Every kind but *good* left out, with several splits of the other images, stratified by class.

    With `one_known`, all but one of the other kinds are passed over.
    """
    for number, kind in enumerate(regions.names):
        if kind == "good":
            continue
        for split in range(num_splits):
            rng = np.random.default_rng([number, split])
            chosen: list[int] = []
            for label in range(len(regions.names)):
                images = rng.permutation(np.unique(regions.image[regions.label == label]))
                chosen.extend(images[: len(images) // 2].tolist())
            new, in_run = regions.label == number, np.isin(regions.image, chosen)
            known = ~new
            if one_known:
                others = [label for label, name in enumerate(regions.names) if label != number and name != "good"]
                known = regions.label == rng.choice(others)
            yield Trial(kind, known & in_run, known & ~in_run, new)


def by_cosine(run: Tensor, new: Tensor, num_classes: int) -> Tensor:
    """Cosine to the nearest prototype."""
    return -_cosines(run, new, num_classes).amax(dim=1)


def by_probability(run: Tensor, new: Tensor, num_classes: int) -> Tensor:
    """Largest probability (Hendrycks and Gimpel, 2017)."""
    return -(_cosines(run, new, num_classes) / 0.1).softmax(dim=1).amax(dim=1)


def by_energy(run: Tensor, new: Tensor, num_classes: int) -> Tensor:
    """Energy of the logits (Liu et al., 2020)."""
    return -(_cosines(run, new, num_classes) / 0.1).logsumexp(dim=1)


def by_mahalanobis(run: Tensor, new: Tensor, num_classes: int) -> Tensor:
    """Mahalanobis distance to the nearest class, one covariance for all (Lee et al., 2018), shrunk (Ledoit-Wolf)."""
    rows, others = unit_rows(run).double().numpy(), unit_rows(new).double().numpy()
    labels = cluster_features(rows, num_classes)
    means = np.stack([rows[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    precision = np.linalg.inv(ledoit_wolf(rows - means[labels])[0])
    offsets = others[:, None] - means[None]
    return torch.from_numpy(np.einsum("nkd,de,nke->nk", offsets, precision, offsets).min(axis=1))


def by_neighbour(k: int) -> Score:
    """Cosine to the k-th nearest region (Sun et al., 2022)."""

    def score(run: Tensor, new: Tensor, num_classes: int) -> Tensor:
        del num_classes
        return -(unit_rows(new) @ unit_rows(run).T).topk(k, dim=1).values[:, -1]

    return score


def by_rejection(run: Tensor, new: Tensor, num_classes: int) -> Tensor:
    """What the package does, see :class:`RegionRejection`."""
    del num_classes
    rejection = RegionRejection()
    rejection.fit(run, torch.arange(len(run)))
    return -rejection(new)


SCORES: dict[str, Score] = {
    "largest probability": by_probability,
    "energy": by_energy,
    "cosine to the nearest prototype": by_cosine,
    "Mahalanobis, shared covariance": by_mahalanobis,
    "5th nearest region, cosine": by_neighbour(5),
    "nearest region, cosine": by_neighbour(1),
    "nearest region, standardised": by_rejection,
}


def auroc(score: Tensor, new: np.ndarray) -> float:
    """AUROC of unknown regions."""
    return float(roc_auc_score(new, score.numpy()))


def compare(regions: Regions) -> dict[tuple[str, str], list[float]]:
    """AUROC of each score by column: each feature with all other kinds known, frozen features with one of them."""
    columns = [("last", False), ("frozen", False), ("frozen", True)]
    found: dict[tuple[str, str], list[float]] = {}
    for feature, one_known in columns:
        features, num_classes = regions.features[feature], 1 if one_known else len(regions.names) - 1
        for trial in trials(regions, 1, one_known=one_known):
            tested = trial.held_out | trial.new
            for name, score in SCORES.items():
                values = score(features[trial.run], features[tested], num_classes)
                column = "one kind" if one_known else feature
                found.setdefault((name, column), []).append(auroc(values, trial.new[tested]))
    return found


def measure(regions: Regions, num_splits: int) -> dict[str, list[tuple[float, ...]]]:
    """For every kind and split: AUROC; then, at each rate, shares of held-out and of new regions called unknown."""
    found: dict[str, list[tuple[float, ...]]] = {}
    features = regions.features["frozen"]
    for trial in trials(regions, num_splits):
        rejection = RegionRejection()
        rejection.fit(features[trial.run], torch.from_numpy(regions.image[trial.run]))
        tested = trial.held_out | trial.new
        row = [auroc(-rejection(features[tested]), trial.new[tested])]
        for rate in RATES:
            rejection.false_reject_rate = rate
            row += [float(rejection.is_unknown(features[part]).float().mean()) for part in (trial.held_out, trial.new)]
        found.setdefault(trial.kind, []).append(tuple(row))
    return found


def print_measured(name: str, found: dict[str, list[tuple[float, ...]]]) -> None:
    """Rows of the table of rates, and their mean."""
    kinds = {kind: [statistics.mean(column) for column in zip(*rows, strict=True)] for kind, rows in found.items()}
    kinds["mean"] = [statistics.mean(column) for column in zip(*kinds.values(), strict=True)]
    for kind, values in kinds.items():
        cells = " | ".join(f"{value:.3f}" if not place else f"{value:.1%}" for place, value in enumerate(values))
        print(f"| {name} | {kind} | {cells} |", flush=True)


def print_rates_header() -> None:
    """Header of the table of rates."""
    columns = [f"known called unknown at {rate:.0%} | new called unknown at {rate:.0%}" for rate in RATES]
    print(f"| backbone | left out | AUROC | {' | '.join(columns)} |")
    print("| --- | --- | --- |" + " --- | --- |" * len(RATES))


def _cosines(run: Tensor, new: Tensor, num_classes: int) -> Tensor:
    """Cosines to the centres of Ward's clusters, as ``--method cluster`` has them."""
    labels = torch.from_numpy(cluster_features(run, num_classes))
    return unit_rows(new) @ cluster_centres(run, labels, num_classes).T


def build_models(weights: Path | None, kind: DescriberKind) -> Iterator[tuple[str, AnomalyNcd]]:
    """DeiT-Tiny, where its weights are given, and EfficientNet-Lite0."""
    if weights is not None:
        yield "DeiT-Tiny", AnomalyNcd("deit_tiny_patch16_224", weights, describer=kind)
    yield "EfficientNet-Lite0", AnomalyNcd("offline", describer=kind)


def on_generated(options: argparse.Namespace) -> None:
    """Compare scores and check rates on generated plates."""
    num_normal = 40 if options.normal_images else 0
    sets = [
        generate_dataset(
            options.output / f"plates{seed}_{num_normal}",
            kinds=DEFECT_KINDS,
            num_train_good=num_normal,
            num_test_good=40,
            num_per_kind=30,
            num_mixed=0,
            seed=seed,
            anomaly_maps=True,
        )
        for seed in range(2)
    ]
    measured: dict[str, dict[str, list[tuple[float, ...]]]] = {}
    print("| backbone | score | whole encoder | least | frozen part | least | one kind known | least |")
    print("| --- |" + " --- |" * 7)
    for name, model in build_models(
        options.weights, "normal_residuals" if options.normal_images else "frozen_features"
    ):
        compared: dict[tuple[str, str], list[float]] = {}
        for data in sets:
            assert data.anomaly_maps_dir is not None
            normal = data.train_good_dir if options.normal_images else None
            images, maps = data.test_dir, data.anomaly_maps_dir
            regions = encode(model, NcdDataModule(images, maps, labels="folders", normal_images=normal))
            for key, values in compare(regions).items():
                compared.setdefault(key, []).extend(values)
            for kind, rows in measure(regions, options.splits).items():
                measured.setdefault(name, {}).setdefault(kind, []).extend(rows)
        for score in SCORES:
            columns = [compared[score, column] for column in ("last", "frozen", "one kind")]
            cells = [f"{statistics.mean(values):.3f} | {min(values):.3f}" for values in columns]
            print(f"| {name} | {score} | {' | '.join(cells)} |", flush=True)
    print()
    print_rates_header()
    for name, found in measured.items():
        print_measured(name, found)


def on_mtd(options: argparse.Namespace) -> None:
    """Leave each class of Magnetic Tile Defect out."""
    print_rates_header()
    for name, model in build_models(
        options.weights, "normal_residuals" if options.normal_images else "frozen_features"
    ):
        images, maps = options.data / "mtd" / "test", options.data / "mtd_anomaly_maps"
        normal = options.data / "mtd" / "train" / "good" if options.normal_images else None
        regions = encode(model, NcdDataModule(images, maps, labels="folders", normal_images=normal))
        print_measured(name, measure(regions, options.splits))


def main() -> None:
    """Run the chosen comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["generated", "mtd"])
    parser.add_argument("--data", type=Path, help="folder with mtd and mtd_anomaly_maps")
    parser.add_argument("--weights", type=Path, help="DeiT-Tiny weights")
    parser.add_argument("--output", type=Path, default=Path("runs/unknown"), help="folder for generated images")
    parser.add_argument("--normal_images", action="store_true", help="compare regions with normal images")
    parser.add_argument("--splits", type=int, default=5, help="splits of the known images")
    options = parser.parse_args()
    (on_mtd if options.what == "mtd" else on_generated)(options)


if __name__ == "__main__":
    main()
