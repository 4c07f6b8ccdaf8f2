# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Many images in a row, and images and folders that something is wrong with: time and memory."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from deploy_stages import EvenEncoder, default_manifest

from anomalib_ncd.deploy import AnomalyClassifier
from anomalib_ncd.deploy.line.folder_run import classify_folder

SIDE_PX = 96


@dataclass
class CountingDetector:
    """How far a pixel is from grey; notes the memory of the process after every so many images.

    Attributes:
        every: Images between two notes.
        memory: Megabytes of memory by number of images.
    """

    every: int
    memory: dict[int, float] = field(default_factory=dict)
    num_images: int = 0

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Map of an image."""
        self.num_images += 1
        if self.num_images % self.every == 0:
            self.memory[self.num_images] = resident_mb()
        return np.abs(pixels.astype(np.float32).mean(axis=2) - 120) / 120


def resident_mb() -> float:
    """Memory that the process holds now, in MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def peak_mb() -> float:
    """Most memory that the process has held, in MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def draw_images(folder: Path, number: int) -> None:
    """Grey plates with a square or a line."""
    images = folder / "images"
    shutil.rmtree(folder, ignore_errors=True)
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(number):
        pixels = np.full((SIDE_PX, SIDE_PX, 3), rng.integers(110, 130), np.uint8)
        top, left = rng.integers(8, SIDE_PX - 30, 2)
        pixels[top : top + (20 if index % 2 else 6), left : left + 20] = 230 if index % 3 else 20
        cv2.imwrite(str(images / f"{index:06d}.png"), pixels)


def many_table(output: Path, number: int) -> str:
    """Memory and images a second over many images, as a stream and into a folder of results, in a process each."""
    draw_images(output, number)
    rows = ["| way | images | seconds | images a second | MB after 1,000 | MB after all |", "|" + " --- |" * 6]
    for way in ("stream", "folder", "the same folder again"):
        row = _in_a_process(way, str(output))
        rows.append(f"| {way} | {number:,} | {row} |")
    return "\n".join(rows)


def _many(way: str, output: str) -> str:
    """Classify a folder without networks; seconds, images a second, memory after 1,000 and at the end."""
    images = Path(output) / "images"
    number = sum(1 for _ in images.iterdir())
    detector = CountingDetector(every=1000)
    manifest = default_manifest((0.1, 1.0))
    classifier = AnomalyClassifier(manifest, EvenEncoder(len(manifest.class_names)), detector, keep_masks=False)
    start = time.perf_counter()
    if way == "stream":
        found = sum(result.error is None for result in classifier.stream(sorted(images.iterdir())))
    else:
        counts = classify_folder(classifier, images, Path(output) / "results", pictures=False)
        found = counts.classified + counts.before
    seconds = time.perf_counter() - start
    assert found == number
    early = f"{detector.memory[1000]:.1f}" if detector.memory else ""
    return f"{seconds:.1f} | {number / seconds:.0f} | {early} | {resident_mb():.1f}"


def _in_a_process(*arguments: str) -> str:
    """What this file prints when it is run, with nothing but deployment imported."""
    command = [sys.executable, __file__, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(result.stderr)
    return result.stdout.strip()


def faults_table(artefact: Path, output: Path) -> str:
    """Time and peak memory of one image each, in a process of its own."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    rows = ["| image | MB on disk | outcome | seconds | peak MB | MB before |", "|" + " --- |" * 6]
    for name, file in _odd_images(output).items():
        row = _in_a_process("image", str(artefact), str(file))
        rows.append(f"| {name} | {file.stat().st_size / 1e6:.2f} | {row} |")
    return "\n".join(rows)


def _odd_images(folder: Path) -> dict[str, Path]:
    """Images that are usual, as large as is allowed, larger, cut off, and none at all."""
    rng = np.random.default_rng(0)
    usual = np.clip(rng.normal(120, 4, (256, 256, 3)), 0, 255).astype(np.uint8)
    files = {
        "256 x 256": folder / "usual.png",
        "10,000 x 10,000": folder / "large.png",
        "60,000 x 50,000": folder / "giant.png",
        "cut off": folder / "cut.png",
        "no image": folder / "text.png",
    }
    cv2.imwrite(str(files["256 x 256"]), usual)
    cv2.imwrite(str(files["10,000 x 10,000"]), cv2.resize(usual, (10_000, 10_000), interpolation=cv2.INTER_NEAREST))
    files["60,000 x 50,000"].write_bytes(_announced_png(60_000, 50_000))
    files["cut off"].write_bytes(files["256 x 256"].read_bytes()[:5000])
    files["no image"].write_text("no image")
    return files


def _announced_png(width: int, height: int) -> bytes:
    """A small file that unpacks to gigabytes: a picture of zeros."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10_000_000))) + chunk(b"IEND", b"")


def _one_image(artefact: str, file: str) -> str:
    """Classify an image; outcome, seconds, peak memory, memory beforehand."""
    classifier = AnomalyClassifier.load(artefact)
    next(classifier.stream([np.full((256, 256, 3), 120, np.uint8)]))
    before = resident_mb()
    start = time.perf_counter()
    [result] = classifier.stream([file], on_error="report")
    seconds = time.perf_counter() - start
    outcome = "classified" if result.error is None else result.error.replace(file, Path(file).name)
    return f"{outcome} | {seconds:.3f} | {peak_mb():.0f} | {before:.0f}"


if __name__ == "__main__":
    print(_one_image(*sys.argv[2:]) if sys.argv[1] == "image" else _many(*sys.argv[1:]))
