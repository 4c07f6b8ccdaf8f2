# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Fixtures for the whole suite, and how it is spread over processes.

Numbers computed with the authors' implementation lie in ``tests/golden``. Real images and real weights are not part
of the project. They are looked for in the folder that ``ANOMALIB_NCD_SHARED`` names, else in ``shared`` beside the
project; tests that need them skip where they are absent.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

SHARED = Path(os.environ.get("ANOMALIB_NCD_SHARED", Path(__file__).parents[2] / "shared"))
MOST_PROCESSES = 4  # each takes some gigabytes of memory


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Processes for ``-n auto``: one a core for the whole suite; none for named files or folders.

    Each process imports torch and anomalib, which takes longer than most files of tests. ``-n 2`` asks for two anyhow.
    """
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        return 0
    return min(os.cpu_count() or 1, MOST_PROCESSES)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Give the processes a thread each, and what they start: more would get in each other's way."""
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _shared_folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs {folder}; set ANOMALIB_NCD_SHARED to the folder that holds `{name}`")
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder of the numbers computed with the authors' implementation; a file that is gone fails its tests."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def whole_golden_dir() -> Path:
    """Folder of the authors' numbers on all 583 anomaly maps of MTD, of which ``golden_dir`` has a sample."""
    return _shared_folder("golden")


@dataclass(frozen=True)
class GoldenMaps:
    """Anomaly maps of MTD with what the authors' implementation makes of them.

    Attributes:
        maps: Anomaly maps, ``(H, W)`` uint8.
        score_range: Lowest and highest peak of all 583 maps.
        mebin: ``thresholds``, ``est_anomaly_num``, ``component_counts`` and ``masks`` by erosion size, one row a map.
        crops: Size of the image, boxes, scores and areas of the regions of each map.
    """

    maps: list[np.ndarray]
    score_range: tuple[float, float]
    mebin: dict[int, dict[str, np.ndarray]]
    crops: list[dict[str, Any]]


GOLDEN_ARRAYS = ("thresholds", "est_anomaly_num", "component_counts", "masks")


def _golden_sample(folder: Path) -> GoldenMaps:
    stored = np.load(folder / "mebin_sample.npz")
    crops = json.loads((folder / "crops_sample.json").read_text())
    mebin = {size: {key: stored[f"{name}_{key}"] for key in GOLDEN_ARRAYS} for size, name in GOLDEN_EROSIONS.items()}
    names = [path.removesuffix(".png") for path in stored["map_paths"].tolist()]
    score_range = float(stored["min_th"]), float(stored["max_th"])
    return GoldenMaps(list(stored["maps"]), score_range, mebin, [crops[name] for name in names])


def _golden_whole(folder: Path, maps: Path) -> GoldenMaps:
    stored = {size: np.load(folder / f"mebin_{name}.npz") for size, name in GOLDEN_EROSIONS.items()}
    crops = json.loads((folder / "crops.json").read_text())
    paths = stored[6]["map_paths"].tolist()
    return GoldenMaps(
        [cv2.imread(str(maps / path), cv2.IMREAD_GRAYSCALE) for path in paths],
        (float(stored[6]["min_th"]), float(stored[6]["max_th"])),
        {size: {key: arrays[key] for key in GOLDEN_ARRAYS} for size, arrays in stored.items()},
        [crops[path.removesuffix(".png")] for path in paths],
    )


GOLDEN_EROSIONS = {6: "erode", 0: "no_erode"}


@pytest.fixture(scope="session", params=["sample", "whole"])
def golden_maps(request: pytest.FixtureRequest) -> GoldenMaps:
    """A sample of MTD's anomaly maps, which every clone has, and all 583 of them where they are at hand."""
    if request.param == "sample":
        return _golden_sample(request.getfixturevalue("golden_dir"))
    whole = request.getfixturevalue("whole_golden_dir")
    return _golden_whole(whole, request.getfixturevalue("data_dir") / "mtd_anomaly_maps")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real images, masks and anomaly maps."""
    return _shared_folder("data")


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    """Folder of real backbone weights."""
    return _shared_folder("weights")


@dataclass(frozen=True)
class TinyRun:
    """Paths of a hand-made data set of a few small images."""

    images: Path
    anomaly_maps: Path
    base: Path


def _draw(kind: str, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A grey plate with a square, a line or nothing on it, and the mask of that."""
    image = np.clip(rng.normal(120, 4, (size, size, 3)), 0, 255).astype(np.uint8)
    mask = np.zeros((size, size), np.uint8)
    top, left = rng.integers(8, size - 28, 2)
    if kind == "square":
        mask[top : top + 18, left : left + 18] = 1
    elif kind == "line":
        mask[top : top + 7, 4 : size - 4] = 1
    image[mask > 0] = (230, 230, 230) if kind == "square" else (20, 20, 20)
    return image, mask


def make_tiny_run(folder: Path, per_class: int = 6, size: int = 64) -> TinyRun:
    """Write images of three kinds, their anomaly maps, and two base classes."""
    rng = np.random.default_rng(0)
    for kind in ("good", "line", "square"):
        for number in range(per_class):
            image, mask = _draw(kind, rng, size)
            name = f"{kind}/{number:03d}"
            anomaly_map = cv2.GaussianBlur(mask.astype(np.float32), (5, 5), 0) * rng.uniform(0.7, 1.0)
            anomaly_map += rng.uniform(0.05, 0.15, mask.shape).astype(np.float32)
            (folder / "images" / kind).mkdir(parents=True, exist_ok=True)
            (folder / "maps" / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / "images" / f"{name}.png"), image)
            np.save(folder / "maps" / f"{name}.npy", anomaly_map)
    for kind in ("line", "square"):
        for number in range(4):
            image, mask = _draw(kind, rng, size)
            for part, pixels in (("images", image), ("masks", mask * 255)):
                target = folder / "base" / part / f"base_{kind}"
                target.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(target / f"{number}.png"), pixels)
    return TinyRun(folder / "images", folder / "maps", folder / "base")


@pytest.fixture(scope="session")
def short_vit() -> str:
    """Name of a ViT of three blocks: timm's smallest, ``test_vit``, has six, of which an export takes twice as long."""
    import timm  # noqa: PLC0415 - most tests don't need it

    @timm.models.register_model
    def short_vit(pretrained: bool = False, **arguments: Any) -> Any:
        return timm.create_model("test_vit", pretrained=pretrained, depth=3, **arguments)

    return short_vit.__name__


@pytest.fixture(scope="module")
def little_of_normal() -> Iterator[None]:
    """Compare with 40 regions of normal images, not 300, and let detectors keep 500 patches, not 2,000."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anomalib_ncd.models.offline_detector.MAX_MEMORY", 500)
        patch.setattr("anomalib_ncd.runs.cluster.MAX_NORMAL_REGIONS", 40)
        yield


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A data set of 18 images that tests only read."""
    return make_tiny_run(tmp_path_factory.mktemp("tiny_run"))


@pytest.fixture(scope="session")
def clustered_run(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one cluster for lines and squares, and one for good images; tests only read it."""
    from anomalib_ncd.cli.main import main  # noqa: PLC0415 - tests without a run don't wait for it

    output = tmp_path_factory.mktemp("clustered") / "run"
    flags = ["--images", str(tiny_run.images), "--anomaly_maps", str(tiny_run.anomaly_maps), "--labels", "folders"]
    flags += ["--backbone", "test_vit", "--pretrained", "false", "--training.mask_layers", "3", "--seed", "5"]
    flags += ["--regions.method", "mebin", "--regions.erosion_size", "3"]  # good images have a region as well
    main(["discover", *flags, "--output", str(output), "--method", "cluster", "--num_novel_classes", "2"])
    return output


@pytest.fixture
def own_tiny_run(tiny_run: TinyRun, tmp_path: Path) -> TinyRun:
    """The same data set, with the same times, in a folder that a test may change."""
    copied = shutil.copytree(tiny_run.images.parent, tmp_path / "data")
    return TinyRun(*(copied / folder.name for folder in (tiny_run.images, tiny_run.anomaly_maps, tiny_run.base)))
