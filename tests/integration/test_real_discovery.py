# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The command on real images, maps, base classes and weights."""

import csv
import json

import pytest

from anomalib_ncd.cli.main import main


@pytest.fixture(scope="module")
def small_base(data_dir, tmp_path_factory):
    """Links to every fourth of the base images of the small list, and to their masks."""
    base = tmp_path_factory.mktemp("base")
    lines = (data_dir / "steel_base_mini.txt").read_text().split()
    listed = {line.rpartition(".")[0] for line in lines[::4]}
    for file in (data_dir / "steel_base").rglob("*.*"):
        relative = file.relative_to(data_dir / "steel_base")
        if "/".join(relative.with_suffix("").parts[1:]) in listed:
            (base / relative).parent.mkdir(parents=True, exist_ok=True)
            (base / relative).symlink_to(file)
    return base


@pytest.fixture(scope="module")
def real_arguments(data_dir, weights_dir, small_base):
    return [
        *["discover", "--images", str(data_dir / "mtd" / "test"), "--image_list", str(data_dir / "mtd_mini.txt")],
        *["--anomaly_maps", str(data_dir / "mtd_anomaly_maps"), "--labels", "folders", "--num_novel_classes", "6"],
        *["--base", str(small_base)],
        *["--backbone", "deit_tiny_patch16_224", "--training.merging_temperature", "50", "--accelerator", "cpu"],
        *["--backbone_weights", str(weights_dir / "deit_tiny_patch16_224.safetensors")],
    ]


@pytest.mark.slow
def test_clusters_of_frozen_features_follow_the_kinds_of_defect(real_arguments, tmp_path):
    main([*real_arguments, "--method", "cluster", "--output", str(tmp_path)])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["image"]["count"] == 252
    assert metrics["region"]["count"] == 250
    # Chance is 0; Ward on these features scores 0.29.
    assert metrics["image"]["nmi"] > 0.25


@pytest.mark.slow
def test_a_few_epochs_of_training_beat_chance_and_leave_a_whole_run(real_arguments, data_dir, tmp_path):
    every_other = (data_dir / "mtd_mini.txt").read_text().split()[::2]
    (tmp_path / "list.txt").write_text("\n".join(every_other))
    flags = ["--image_list", str(tmp_path / "list.txt"), "--max_epochs", "2", "--training.num_cached_views", "2"]
    run = tmp_path / "run"
    main([*real_arguments, *flags, "--output", str(run)])
    metrics = json.loads((run / "metrics.json").read_text())
    # Chance is 0; fifty epochs score about 0.25.
    assert metrics["image"]["nmi"] > 0.1
    with (run / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len({row["image"] for row in rows}) == 126
    assert {row["class"] for row in rows} <= {"normal", *(f"class_{i}" for i in range(1, 6))}
    for name in ("regions.csv", "gallery.png", "model.ckpt", "config.yaml", "regions/regions.jsonl"):
        assert (run / name).stat().st_size > 0
