# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What cached views save: seconds of training and prediction against the plain way and the authors' code.

    weights=../shared/weights/deit_tiny_patch16_224.safetensors
    python benchmarks/training.py epochs --data ../shared/data --weights $weights
    python benchmarks/training.py prediction --data ../shared/data --weights $weights
    python benchmarks/training.py epochs --device cuda --backbone vit_base_patch8_224.dino --generated 2000

``epochs`` times the plain path for a few epochs and the cached path for all of them, on the same regions and in the
same process, and gives the ratio for a whole training. It counts seconds of the clock and of the processor; with one
thread (``OMP_NUM_THREADS=1``) the latter are what an idle machine would take, whatever else runs. ``prediction`` times
the forward pass on the same views, plain and ours by turns, and compares the features. Without ``--weights`` the
backbone's weights are random, which is good enough for speed.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from anomalib.engine import Engine
from lightning.pytorch import Callback, seed_everything
from plain_path import PillowView, make_plain

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.settings import TrainingSettings
from anomalib_ncd.synthetic.plates import generate_dataset

PATHS = ["plain", "fresh", "cached"]


class EpochTimes(Callback):
    """Seconds from the start of ``fit`` to the first epoch and of each epoch: by the clock, and of the processor.

    The processor's count all threads, and are hardly touched by what else runs on the machine.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.before = self.cpu_before = 0.0
        self._start, self._cpu_start = time.perf_counter(), time.process_time()

    def on_train_epoch_start(self, *_: Any) -> None:  # noqa: ANN401
        """Note the time."""
        now, cpu_now = time.perf_counter(), time.process_time()
        self.before = self.before or now - self._start
        self.cpu_before = self.cpu_before or cpu_now - self._cpu_start
        self._start, self._cpu_start = now, cpu_now

    def on_train_epoch_end(self, *_: Any) -> None:  # noqa: ANN401
        """Note the epoch's seconds; work on a card is waited for."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self._start)
        self.cpu_seconds.append(time.process_time() - self._cpu_start)


def real_data(options: argparse.Namespace) -> NcdDataModule:
    """Magnetic Tile Defect, mini or full."""
    mini = options.set == "mini"
    return NcdDataModule(
        images=options.data / "mtd" / "test",
        anomaly_maps=options.data / "mtd_anomaly_maps",
        base=options.data / "steel_base",
        image_list=options.data / "mtd_mini.txt" if mini else None,
        base_list=options.data / "steel_base_mini.txt" if mini else None,
        num_workers=options.num_workers,
    )


def generated_data(options: argparse.Namespace, folder: Path) -> NcdDataModule:
    """About as many generated regions as asked for, with the true masks as maps."""
    data = generate_dataset(
        folder,
        num_train_good=1,
        num_test_good=0,
        num_mixed=0,
        num_per_kind=options.generated // 5,
        anomaly_maps=True,
    )
    if data.anomaly_maps_dir is None:
        msg = f"{folder} holds no maps."
        raise FileNotFoundError(msg)
    return NcdDataModule(images=data.test_dir, anomaly_maps=data.anomaly_maps_dir, num_workers=options.num_workers)


def build_model(options: argparse.Namespace, num_cached_views: int | None) -> AnomalyNcd:
    """The model under test, the same each time: the paper's, which the plain path and the authors' code train."""
    seed_everything(0)
    return AnomalyNcd(
        backbone=options.backbone,
        backbone_weights=options.weights,
        pretrained=options.weights is not None,
        num_novel_classes=6,
        training=TrainingSettings(
            feature_layers=1, prototypes="random", contrast=True, num_cached_views=num_cached_views
        ),
        false_reject_rate=None,
    )


def fit(model: AnomalyNcd, datamodule: NcdDataModule, options: argparse.Namespace, max_epochs: int) -> EpochTimes:
    """Train and time."""
    times = EpochTimes()
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(
            callbacks=[times],
            max_epochs=max_epochs,
            accelerator="gpu" if options.device == "cuda" else "cpu",
            devices=1,
            precision=options.precision,
            logger=False,
            enable_progress_bar=False,
            default_root_dir=folder,
        )
        engine.fit(model, datamodule=datamodule)
    return times


def time_epochs(options: argparse.Namespace) -> None:
    """Seconds of a whole training on the plain path, with fresh views, and with cached ones."""
    with tempfile.TemporaryDirectory() as folder:
        datamodule = real_data(options) if options.data else generated_data(options, Path(folder))
        regions = datamodule.train_regions()
        kinds = {"base": int(regions.is_base.sum()), "novel": int((~regions.is_base).sum())}
        print(f"{options.backbone}, {kinds}, {options.precision}, {torch.get_num_threads()} threads, {options.device}")
        results: dict[str, dict[str, float]] = {}
        fast_view = regions.view
        for name in options.paths:
            plain, cached = name == "plain", name == "cached"
            regions.view = PillowView(datamodule.image_size) if plain else fast_view  # type: ignore[assignment]
            model = build_model(options, options.views if cached else None)
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            max_epochs = options.max_epochs if cached else options.timed_epochs
            times = fit(make_plain(model) if plain else model, datamodule, options, max_epochs)
            per_epoch, cpu_per_epoch = statistics.median(times.seconds), statistics.median(times.cpu_seconds)
            results[name] = {
                "before": times.before,
                "per_epoch": per_epoch,
                "total": times.before + per_epoch * options.max_epochs,
                "cpu_before": times.cpu_before,
                "cpu_per_epoch": cpu_per_epoch,
                "cpu_total": times.cpu_before + cpu_per_epoch * options.max_epochs,
            }
            if torch.cuda.is_available():
                results[name]["card_gib"] = torch.cuda.max_memory_allocated() / 2**30
            print(json.dumps({name: results[name]}), flush=True)
    print_ratios(results, options)


def print_ratios(results: dict[str, dict[str, float]], options: argparse.Namespace) -> None:
    """How many times as fast the cached path is, by the clock and by the processor's seconds."""
    if "cached" not in results:
        return
    cached = results["cached"]
    for name, result in results.items():
        ratio, cpu_ratio = (result[total] / cached[total] for total in ("total", "cpu_total"))
        print(f"cached against {name}: {ratio:.1f} times as fast, {cpu_ratio:.1f} in seconds of the processor")
    if options.authors_epoch:
        seconds = options.authors_epoch * options.max_epochs
        ratio, cpu_ratio = (seconds / cached[total] for total in ("total", "cpu_total"))
        print(f"cached against the authors' {seconds:.0f} s: {ratio:.1f}, in seconds of the processor {cpu_ratio:.1f}")


def time_prediction(options: argparse.Namespace) -> None:
    """Seconds of the forward pass on real regions: plain as PyTorch comes, then all by turns as the commands run."""
    datamodule = real_data(options)
    batches = []
    for batch in datamodule.test_dataloader():
        batches.append(batch)
        if sum(len(each.image) for each in batches) >= options.num_regions:
            break
    images = torch.cat([batch.image for batch in batches]).to(options.device)
    masks = torch.cat([batch.region_mask for batch in batches]).to(options.device)
    model = build_model(options, None).eval().to(options.device)
    own = model.model.describer.encoder
    plain = make_plain(build_model(options, None)).eval().to(options.device).model.describer.encoder
    views = model.model.describer.normalised(images)
    paths = {"plain": plain, "ours": own, "ours, bfloat16": own}
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    features: dict[str, torch.Tensor] = {}
    clock = time.process_time if options.cpu_time else time.perf_counter
    for _ in range(options.repeats):
        for name, encoder in paths.items():
            start = clock()
            with torch.no_grad(), torch.autocast(options.device, torch.bfloat16, enabled="bfloat16" in name):
                parts = zip(views.split(options.batch_size), masks.split(options.batch_size), strict=True)
                features[name] = torch.cat([encoder(*part).float() for part in parts])
            if options.device == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(clock() - start)
    print("| forward pass | ms a region | times as fast | largest difference | least cosine |")
    print("| --- | --- | --- | --- | --- |")
    baseline = statistics.median(seconds["plain"])
    for name, values in seconds.items():
        median = statistics.median(values)
        difference = float((features[name] - features["plain"]).abs().max())
        cosine = float(torch.cosine_similarity(features[name], features["plain"]).min())
        print(
            f"| {name} | {1e3 * median / len(images):.1f} | {baseline / median:.2f} | {difference:.1e} | {cosine:.5f} |"
        )


def main() -> None:
    """Parse flags and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["epochs", "prediction"])
    parser.add_argument("--data", type=Path, help="folder with mtd, mtd_anomaly_maps and steel_base")
    parser.add_argument("--set", choices=["mini", "full"], default="mini")
    parser.add_argument("--generated", type=int, default=2000, help="regions to generate where there is no --data")
    parser.add_argument("--weights", type=Path, help="weights of the backbone; random without")
    parser.add_argument("--backbone", default="deit_tiny_patch16_224")
    parser.add_argument("--paths", nargs="+", choices=PATHS, default=PATHS)
    parser.add_argument("--views", type=int, default=8, help="cached views per region")
    parser.add_argument("--max_epochs", type=int, default=50)
    parser.add_argument("--timed_epochs", type=int, default=3, help="epochs to time of the slow paths")
    parser.add_argument("--authors_epoch", type=float, default=46.3, help="seconds of an epoch of the authors' code")
    parser.add_argument("--precision", default="32-true", help="Lightning's precision")
    parser.add_argument("--num_workers", type=int, default=0)
    parser.add_argument("--num_regions", type=int, default=256, help="regions to predict")
    parser.add_argument("--batch_size", type=int, default=32, help="regions in a forward pass")
    parser.add_argument("--cpu_time", action="store_true", help="prediction: seconds of the processor, not the clock's")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    {"epochs": time_epochs, "prediction": time_prediction}[options.what](options)


if __name__ == "__main__":
    main()
