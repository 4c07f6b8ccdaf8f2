# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The datamodule that feeds images and anomaly maps to class discovery."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import AnomalibDataModule
from anomalib.models import AnomalibModule
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from anomalib_ncd.data import synthetic_base
from anomalib_ncd.data.batches import ModelInputs, NcdBatch, RegionViewBatch
from anomalib_ncd.data.datasets import BalancedSampler, EvalImages, NormalRegions, TrainRegions
from anomalib_ncd.data.detector_maps import load_detector, predict_anomaly_maps
from anomalib_ncd.data.images import LabelledImage, find_normal_images, images_of, list_base, list_examples
from anomalib_ncd.data.labels import Defect, class_ids, has_defects, image_labels, read_defects, read_labels
from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.data.synthetic_base import least_anomalous, write_synthetic_base
from anomalib_ncd.regions.cutting import fit_range
from anomalib_ncd.regions.reading.listing import ImageFile, find_files, mark_output
from anomalib_ncd.regions.reading.maps import MAP_SUFFIXES, MapPairs, read_anomaly_map
from anomalib_ncd.regions.settings import RegionSettings

DEFAULT_IMAGE_SIZE = 224
MANY_EMPTY = 1 / 3  # from this share of images without a region on there is a warning

logger = logging.getLogger(__name__)


class NcdDataModule(AnomalibDataModule):
    """Images, their anomaly maps and labelled base classes, cut into regions.

    Args:
        images: Folder of images (searched recursively) or any anomalib image datamodule, whose test images are taken.
        anomaly_maps: Folder of maps (8- or 16-bit PNG, float TIFF, NPY), paired by relative path and stem, or a
            fitted anomalib detector.
        base: Folder of labelled base classes, ``images/<class>`` and ``masks/<class>``, or ``"synthetic"``: kinds of
            defect painted onto normal images (``"./synthetic"`` for a folder of that name). ``None``: none.
        labels: Ground truth for evaluation, which nothing else ever sees: ``"folders"`` takes the name of the folder
            that holds an image, a CSV file has the columns ``image`` and ``class``; for single defects also those of a
            box, or a folder of masks, see :func:`~anomalib_ncd.data.labels.read_defects`. ``None``: none.
        image_list: Text file of relative paths, one a line, that narrows ``images`` down.
        base_list: The same for the base images, relative to ``base/images``.
        normal_images: Images known to be normal, such as those that the detector was trained on: a folder, or an
            anomalib image datamodule, whose normal training images are taken. Clusters compare regions with them,
            training sees regions of them as examples of *normal*, and synthetic base classes are painted on them; on
            those of ``images`` or the least anomalous quarter of the images for ``None``.
        examples: Folder of images of known kinds, ``<class>/…``, for clusters; see
            :func:`~anomalib_ncd.data.images.list_examples`. ``None``: none.
        normal_label: Label of good images.
        detector_ckpt: Lightning checkpoint for a detector given as ``anomaly_maps``.
        normal_maps: Folder of maps of normal images that the detector wasn't trained on. What is higher than all of
            them is anomalous. Not for the region method ``"mebin"``. ``None``: none.
        score_range: Score range of the maps: for MEBin lowest and highest peak. ``None``: that of a fitted model,
            else it is fitted on these maps.
        regions: How regions are found and cut. ``None``: as for a fitted model, else the defaults.
        work_dir: Folder for maps and regions; an interrupted run goes on from it. ``None``: in memory.
        train_batch_size: Regions per training batch.
        eval_batch_size: Images per batch in testing and prediction.
        num_workers: Processes that load and augment; 0 does it in the main process.
        seed: Seed of the order in which regions are drawn.

    Example:
        >>> datamodule = NcdDataModule(  # doctest: +SKIP
        ...     images="mtd/test", anomaly_maps="mtd_anomaly_maps", base="steel_base", labels="folders"
        ... )
    """

    def __init__(
        self,
        images: str | Path | AnomalibDataModule,
        anomaly_maps: str | Path | AnomalibModule,
        base: str | Path | None = None,
        labels: str | Path | None = None,
        image_list: str | Path | None = None,
        base_list: str | Path | None = None,
        normal_images: str | Path | AnomalibDataModule | None = None,
        examples: str | Path | None = None,
        normal_label: str = "good",
        detector_ckpt: str | Path | None = None,
        normal_maps: str | Path | None = None,
        score_range: tuple[float, float] | None = None,
        regions: RegionSettings | None = None,
        work_dir: str | Path | None = None,
        train_batch_size: int = 32,
        eval_batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(train_batch_size, eval_batch_size, num_workers, seed=seed)
        self.images, self.image_list = images, image_list
        self.anomaly_maps, self.normal_maps, self.detector_ckpt = anomaly_maps, normal_maps, detector_ckpt
        self.base, self.base_list = base, base_list
        self.normal_images, self.examples = normal_images, examples
        self.labels, self.normal_label = labels, normal_label
        self.score_range, self.regions = score_range, regions
        self.work_dir = None if work_dir is None else Path(work_dir)
        self.sampler_seed = seed
        self._inputs = ModelInputs(DEFAULT_IMAGE_SIZE)
        self._views: Dataset | None = None

        self.records: list[ImageFile] = []
        self.map_paths: list[Path] = []  # a detector's are made with the regions
        self.normal_map_paths: list[Path] = []
        self.base_records: list[LabelledImage] = []
        self.examples_found: list[LabelledImage] = []
        self.base_class_names: list[str] = []
        self.class_ids: list[int] | None = None
        self.class_names: list[str] = []
        self.defects: list[list[Defect]] | None = None
        self._table: RegionTable | None = None
        self._cut_with: tuple[tuple[float, float], RegionSettings] | None = None
        self._train_regions: TrainRegions | None = None
        self.normal_records: list[ImageFile] = []
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def prepare_data(self) -> None:
        """Let anomalib datamodules given as images fetch or split their data, as they do on their own."""
        for source in (self.images, self.normal_images):
            if isinstance(source, AnomalibDataModule):
                source.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Find images, maps, labels and base images, and check that they belong together; nothing is written."""
        del stage  # everything serves every stage
        if self.records:
            return
        records = images_of(self.images, self.image_list)
        if self.labels is not None:
            self._read_labels(records, self.labels)
        if self.has_synthetic_base or self.normal_images is not None:
            self.normal_records = find_normal_images(self.normal_images, self.images)
        if self.has_synthetic_base:
            if self.base_list is not None:
                msg = "`base_list` narrows a folder of base images down; leave it out with `base='synthetic'`."
                raise ValueError(msg)
            self.base_class_names = list(synthetic_base.KINDS)
        elif self.base is not None:
            self.base_records, self.base_class_names = list_base(self.base, self.base_list)
        if self.examples is not None:
            self.examples_found = list_examples(
                self.examples, records, not isinstance(self.anomaly_maps, AnomalibModule)
            )
        self._find_maps(records)
        if self.normal_maps is not None:
            self.normal_map_paths = list(find_files(self.normal_maps, MAP_SUFFIXES))
            if not self.normal_map_paths:
                msg = f"The folder {self.normal_maps} given as `normal_maps` holds no anomaly maps."
                raise FileNotFoundError(msg)
        self.records = records

    def prepare_for(self, inputs: ModelInputs) -> None:
        """Make regions as a model takes them from now on; ``AnomalyNcd`` says how when it is set up.

        ``ValueError`` if ``regions`` are other settings than those that a fitted model's regions were cut with.
        """
        if self.regions is not None and inputs.regions not in {None, self.regions}:
            msg = f"The model's regions were cut with {inputs.regions}, but `regions` is {self.regions}; leave it out."
            raise ValueError(msg)
        if inputs.image_size != self._inputs.image_size:
            self._train_regions = None
        self._inputs = inputs

    def train_on(self, views: Dataset | None) -> None:
        """Draw training batches from kept views of :meth:`train_regions`; ``None`` for fresh ones."""
        self._views = views

    def region_table(self) -> RegionTable:
        """Regions of all images, cut on first use with the score range and the settings in force."""
        self.setup()
        if isinstance(self.anomaly_maps, AnomalibModule) and not self.map_paths:
            target, bit_depth = self._folder("anomaly_maps"), self.region_settings.bit_depth
            self.map_paths = predict_anomaly_maps(self.anomaly_maps, self.records, target, bit_depth=bit_depth)
        wanted = self._score_range_in_force(), self.region_settings
        if self._table is None or self._cut_with != wanted:
            folder = None if self.work_dir is None else self.work_dir / "regions"
            if self.work_dir is not None:
                mark_output(self.work_dir)
            table = RegionTable(self.records, folder)
            with self.first_process_first():
                self._table = table.build(self.map_paths, *wanted, self._inputs.map_kind)
            self._cut_with = wanted
            self._train_regions = None
            self._warn_of_empty_images(self._table)
        return self._table

    @property
    def image_size(self) -> int:
        """Side of a view in pixels."""
        return self._inputs.image_size

    @property
    def region_settings(self) -> RegionSettings:
        """How regions are found and cut."""
        return self.regions or self._inputs.regions or RegionSettings()

    def keep_in(self, folder: str | Path) -> None:
        """Keep maps and regions in a folder from now on, unless they have one already."""
        if self.work_dir is None:
            self.work_dir = Path(folder)
            self._table = None

    @property
    def has_synthetic_base(self) -> bool:
        """Whether the base classes are painted."""
        return self.base == "synthetic"

    @property
    def fitted_score_range(self) -> tuple[float, float] | None:
        """Score range that the regions were cut with; ``None`` before they were cut."""
        return None if self._cut_with is None else self._cut_with[0]

    def train_regions(self) -> TrainRegions:
        """Training set of base, normal and novel regions."""
        table = self.region_table()
        if self._train_regions is None:
            if self.has_synthetic_base:
                folder, normal = self._folder("synthetic_base"), self.normal_records or least_anomalous(table)
                with self.first_process_first():
                    write_synthetic_base(folder, normal, self.region_settings, self.image_size)
                self.base_records, _ = list_base(folder)
            self._train_regions = TrainRegions(table, self.base_records, self.image_size, self.normal_regions())
        return self._train_regions

    def refuse_examples(self) -> None:
        """Raise ``ValueError`` for examples, which training doesn't look at."""
        if self.examples is not None:
            msg = "`examples` are for clusters; to train on labelled defects, give them as `base`."
            raise ValueError(msg)

    def normal_regions(self, num_regions: int | None = None) -> NormalRegions | None:
        """Regions of the normal images, ``None`` where none were given; see :class:`NormalRegions`."""
        table = self.region_table()
        if self.normal_images is None:
            return None
        return NormalRegions(self.normal_records, table, self.sampler_seed, num_regions)

    @contextmanager
    def first_process_first(self) -> Iterator[None]:
        """Let the first process write into ``work_dir`` before the others read it; without one, all run at once."""
        trainer = self.trainer if self.work_dir is not None else None
        if trainer is not None and self._rank:
            trainer.strategy.barrier()
        yield
        if trainer is not None and not self._rank:
            trainer.strategy.barrier()

    def train_dataloader(self) -> DataLoader:
        """Base and novel regions half and half."""
        regions = self.train_regions()
        sampler = BalancedSampler(regions.is_base, self._rank, self._world_size, self.sampler_seed)
        views, num_workers = (regions, self.num_workers) if self._views is None else (self._views, 0)
        return self._loader(views, self.train_batch_size, sampler, RegionViewBatch.collate, num_workers)

    def val_dataloader(self) -> list[DataLoader]:
        """None: classes are discovered without labels, so there is nothing to validate on."""
        return []

    def test_dataloader(self) -> DataLoader:
        """Every image once, with its regions."""
        num_images = len(self.region_table().images)
        if num_images < self._world_size:
            msg = f"{num_images} images can't be shared among {self._world_size} processes; use fewer devices."
            raise ValueError(msg)
        # Lightning's own sampler for testing repeats images until all processes have the same number.
        return self._eval_loader(range(self._rank, num_images, self._world_size))

    def all_images(self) -> Iterator[NcdBatch]:
        """Batches of all images, whatever process asks, with progress; the random state stays as it was."""
        loader = self._eval_loader(range(len(self.region_table().images)))
        with torch.random.fork_rng(devices=[]):  # a loader draws a seed, and training must not depend on it
            yield from tqdm(loader, desc="Encoding regions", unit="batch")

    def _eval_loader(self, sampler: range) -> DataLoader:
        images = EvalImages(self.region_table(), self.class_ids, self.image_size, self._inputs.whole_images)
        return self._loader(images, self.eval_batch_size, sampler, NcdBatch.collate, self.num_workers)

    def _loader(self, items: Dataset, size: int, sampler: Any, collate: Any, num_workers: int) -> DataLoader:
        # Batches that go to a GPU are taken faster from pinned memory.
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        options = {"collate_fn": collate, "pin_memory": on_gpu}
        # By keyword, as Lightning makes loaders of its own of these.
        return DataLoader(items, batch_size=size, sampler=sampler, num_workers=num_workers, **options)

    def _setup(self, _stage: str | None = None) -> None:
        """Part of anomalib's interface; :meth:`setup` does the work."""

    def _find_maps(self, records: list[ImageFile]) -> None:
        if not isinstance(self.anomaly_maps, AnomalibModule):
            self.map_paths = MapPairs(self.anomaly_maps).pair(records)
            return
        if self._world_size > 1:
            msg = "With several processes, let the detector predict first and give `anomaly_maps` the folder of maps."
            raise ValueError(msg)
        if self.detector_ckpt is not None:
            self.anomaly_maps, self.detector_ckpt = load_detector(type(self.anomaly_maps), self.detector_ckpt), None

    def _folder(self, name: str) -> Path:
        """A folder in ``work_dir``, or in a temporary one that goes with the datamodule."""
        if self.work_dir is not None:
            return self.work_dir / name
        self._temporary = self._temporary or tempfile.TemporaryDirectory(prefix="anomalib_ncd_")
        return Path(self._temporary.name) / name

    def _read_labels(self, records: list[ImageFile], labels: str | Path) -> None:
        """Take labels of images, or of their defects; a region on none of these is good."""
        if not has_defects(labels):
            self.class_ids, self.class_names = class_ids(read_labels(records, labels), self.normal_label)
            return
        self.defects = read_defects(records, labels)
        kinds = {defect.class_name for of_image in self.defects for defect in of_image}
        names = image_labels(self.defects, self.normal_label)
        ids, self.class_names = class_ids([*names, self.normal_label, *kinds], self.normal_label)
        self.class_ids = ids[: len(records)]

    def _score_range_in_force(self) -> tuple[float, float]:
        """The range given by hand, else the model's, else one fitted on these maps."""
        for known in (self.score_range, self._inputs.score_range, self.fitted_score_range):
            if known is not None:
                return known
        method = self.region_settings.method
        if self.normal_map_paths and method == "mebin":
            msg = f"`normal_maps` is {self.normal_maps}, of which MEBin knows nothing; give `regions` another method."
            raise ValueError(msg)
        maps = tqdm(self.map_paths, desc="Fitting the score range", unit="map")
        low, high = fit_range(
            (read_anomaly_map(path) for path in maps),
            method,
            (read_anomaly_map(path) for path in self.normal_map_paths),
            [str(path) for path in self.map_paths],
        )
        # The model keeps the range in single precision; the same numbers on both sides mean the same regions.
        return float(np.float32(low)), float(np.float32(high))

    def _warn_of_empty_images(self, table: RegionTable) -> None:
        """Say where many images have no region, but for a fitted model, to which most images may be good."""
        num_empty, count = len(table.empty_images), len(table.images)
        if self._inputs.score_range is None and num_empty >= MANY_EMPTY * count:
            text = (
                "Nothing was found in %d of %d images (method %r, score range %.4g to %.4g). If they aren't good, try "
                "another method of `regions`, or give `score_range`."
            )
            logger.warning(text, num_empty, count, self.region_settings.method, *self._score_range_in_force())

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer is not None else 0

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer is not None else 1
