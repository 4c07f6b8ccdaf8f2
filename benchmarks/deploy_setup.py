# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What the benchmarks of deployment need beforehand: a detector, a run, and what is packed of both.

Everything is kept in the output folder and not made again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import AnomalibModule, Patchcore
from discovery import run_timed
from lightning.pytorch import seed_everything

from anomalib_ncd import NcdDataModule
from anomalib_ncd.data.detector_maps import load_detector
from anomalib_ncd.deploy import AnomalyClassifier
from anomalib_ncd.deploy.anomalib_detectors import LightningDetector
from anomalib_ncd.deploy.packing.build import build_artefact, classifier_of_run
from anomalib_ncd.models.offline_detector import build_offline_detector

NUM_GOOD_IMAGES = 40


@dataclass(frozen=True)
class Setup:
    """Where data and results lie, and which backbone is used.

    Attributes:
        data: Folder with ``mtd``, ``mtd_anomaly_maps`` and ``mtd_mini.txt``.
        output: Folder for all that is made.
        backbone: Backbone of the encoder.
        weights: Its weights; ``None`` for ``"offline"``.
        num_threads: Threads of the networks.
    """

    data: Path
    output: Path
    backbone: str = "offline"
    weights: Path | None = None
    num_threads: int = 2

    @property
    def images(self) -> Path:
        """The test images."""
        return self.data / "mtd" / "test"

    @property
    def maps(self) -> Path:
        """Their saved maps."""
        return self.data / "mtd_anomaly_maps"

    def mini_images(self) -> list[Path]:
        """The images of MTD-mini."""
        lines = (self.data / "mtd_mini.txt").read_text(encoding="utf-8").split()
        return sorted(self.images / line for line in lines)

    def detector(self) -> AnomalibModule:
        """A small Patchcore, fitted on the first good images."""
        checkpoint = self.output / "detector.ckpt"
        if not checkpoint.is_file():
            good = self.output / "good"
            good.mkdir(parents=True, exist_ok=True)
            for file in sorted((self.data / "mtd" / "train" / "good").iterdir())[:NUM_GOOD_IMAGES]:
                if not (good / file.name).exists():
                    (good / file.name).symlink_to(file.resolve())
            seed_everything(0)
            images = Folder(
                "mtd",
                root=self.output,
                normal_dir="good",
                val_split_mode="from_train",
                val_split_ratio=0.1,
                test_split_mode="none",
                num_workers=0,
                seed=0,
            )
            engine = Engine(accelerator="cpu", devices=1, default_root_dir=self.output / "engine", logger=False)
            engine.fit(build_offline_detector(), datamodule=images)
            engine.trainer.save_checkpoint(checkpoint)
        return load_detector(Patchcore, checkpoint)

    def run(self, *, own_detector: bool) -> Path:
        """A clustered run on MTD-mini, on the detector's maps or the saved ones."""
        folder = self.output / f"run_{self.backbone}_{'detector' if own_detector else 'maps'}"
        flags = ["--images", str(self.images), "--image_list", str(self.data / "mtd_mini.txt"), "--method", "cluster"]
        flags += ["--num_novel_classes", "6", "--training.merging_temperature", "50", "--accelerator", "cpu"]
        flags += ["--backbone", self.backbone]
        flags += [] if self.weights is None else ["--backbone_weights", str(self.weights)]
        if own_detector:
            self.detector()
            flags += ["--detector.class_path", "anomalib.models.Patchcore"]
            flags += ["--detector.ckpt_path", str(self.output / "detector.ckpt")]
        else:
            flags += ["--anomaly_maps", str(self.maps)]
        run_timed(flags, folder)
        return folder

    def datamodule(self) -> NcdDataModule:
        """The images of MTD-mini with their saved maps, to calibrate with."""
        return NcdDataModule(self.images, self.maps, image_list=self.data / "mtd_mini.txt")

    def classifier(self, runtime: str, timer: object = None, batch_size: int = 1) -> AnomalyClassifier:
        """Detector and encoder in a runtime: ``"eager"``, ``"onnx"`` or ``"openvino"``."""
        run = self.run(own_detector=True)
        if runtime == "eager":
            detector = LightningDetector(self.detector())
            return classifier_of_run(run, detector, timer=timer, batch_size=batch_size)
        folder = self.output / f"packed_{self.backbone}_{runtime}"
        if not folder.exists():
            build_artefact(run, folder, detector=self.detector(), runtime=runtime)  # type: ignore[arg-type]
        options = {"timer": timer, "batch_size": batch_size, "num_threads": self.num_threads}
        return AnomalyClassifier.load(folder, **options)  # type: ignore[arg-type]
