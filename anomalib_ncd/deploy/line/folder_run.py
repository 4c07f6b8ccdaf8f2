# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A folder of images classified into a folder of results, once or for as long as images come."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anomalib_ncd.deploy.classifier import AnomalyClassifier
from anomalib_ncd.deploy.line.result_folder import Finished, ResultFolder
from anomalib_ncd.regions.reading.listing import IMAGE_SUFFIXES, ImageFile, find_files, key_of, printable, stamp_of
from anomalib_ncd.regions.reading.maps import MapPairs, map_kind, read_anomaly_map

logger = logging.getLogger(__name__)


class MapFolder:
    """Reads the map of each image, paired as ``discover`` pairs them: of a folder of all images, or of one image."""

    def __init__(self, folder: str | Path, images: str | Path) -> None:
        self._images = Path(images)
        self._root = self._images.parent if self._images.is_file() else self._images
        self._maps = MapPairs(folder)
        self._first: tuple[str, str] | None = None
        self.refresh()

    def expect(self, kind: str | None) -> None:
        """Refuse maps of another kind than those of the run, where that is known."""
        self._first = None if kind is None else (kind, "the run's")

    def refresh(self) -> None:
        """Look at both folders anew; maps that came meanwhile are found afterwards."""
        self._maps.refresh(self._key_of(path) for path in find_files(self._images, IMAGE_SUFFIXES))

    def find(self, image: Path) -> Path | None:
        """Find the map of an image; ``None`` where it is not there (yet). An error where several may be meant."""
        return self._maps.find(self._key_of(image))

    def detect(self, images: Sequence[np.ndarray], paths: Sequence[Path | None] = ()) -> list[np.ndarray]:
        """Read the maps of images; an error where one has none, or one of another kind than those before."""
        if len(paths) < len(images) or None in paths:
            msg = "A folder of maps needs images with a path; give files instead of arrays."
            raise ValueError(msg)
        return [self._read(path) for path in paths if path is not None]

    def _read(self, image: Path) -> np.ndarray:
        file = self.find(image)
        if file is None:
            msg = f"{image} has no anomaly map in {self._maps.folder}, where it is looked for by relative path."
            raise FileNotFoundError(msg)
        anomaly_map = read_anomaly_map(file)
        kind, first = self._first = self._first or (map_kind(anomaly_map), str(file))
        if map_kind(anomaly_map) != kind:
            msg = f"Anomaly map {file} holds {map_kind(anomaly_map)}, but {first} {kind}. Save them alike."
            raise ValueError(msg)
        return anomaly_map

    def _key_of(self, image: Path) -> str:
        return key_of(image.relative_to(self._root) if image.is_relative_to(self._root) else image.name)


@dataclass(frozen=True)
class WatchOptions:
    """How patient to be with files that are being written, and with images that could not be classified.

    Attributes:
        settle_seconds: An image is looked at when its files' sizes and times have not changed for so long.
        retry_seconds: Pause before an image that could not be classified is tried again; it doubles each time.
        max_tries: After so many tries an image whose files stay as they are is recorded as an error.
    """

    settle_seconds: float = 0.5
    retry_seconds: float = 0.5
    max_tries: int = 6


@dataclass
class _Pending:
    made_from: str
    ready_at: float
    tries: int = 0


class FolderWatch:
    """Finds the images of a folder whose results are missing or were made from other files.

    An image is the same as long as the size and time of its file, and of its anomaly map where there is one, are equal.
    ``made_from`` says of a key what the result of that image was made from. Without ``options``, files are there as a
    whole, and what can't be used is an error. ``clock`` is for tests.
    """

    def __init__(
        self,
        source: str | Path,
        made_from: Callable[[str], str | None],
        options: WatchOptions | None = None,
        maps: MapFolder | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = Path(source)
        self.options = options
        self.num_done = 0  # images that had a result at the first look
        self._folder = self.source.parent if self.source.is_file() else self.source
        self._root = self._folder.resolve()
        self._made_from = made_from
        self._maps = maps
        self._clock = clock
        self.pending: dict[Path, _Pending] = {}  # images that are waited for
        self._is_first_look = True

    def poll(self) -> Iterator[ImageFile]:
        """Look through the folder once, and yield the images that are to be classified now."""
        missing = set(self.pending)
        if self._maps is not None:
            self._maps.refresh()
        for path in find_files(self.source, IMAGE_SUFFIXES):
            missing.discard(path)
            arrived = self._look_at(path)
            if arrived is not None:
                yield arrived
        self._is_first_look = False
        for path in missing:
            self._forget(path)

    def identity(self, image: ImageFile) -> str:
        """What tells an image from all others, of other folders as well: its absolute path."""
        return printable(self._root / image.path.relative_to(self._folder))

    def put_off(self, arrived: ImageFile) -> bool:
        """Whether an image that could not be classified is to be forgotten or tried again, and not recorded yet."""
        if self._state_of(arrived.path) is None:
            self._forget(arrived.path)
            return True
        pending = self.pending.get(arrived.path)
        if self.options is None or pending is None:
            return False
        pending.tries += 1
        pending.ready_at = self._clock() + self.options.retry_seconds * 2 ** (pending.tries - 1)
        return pending.tries < self.options.max_tries

    def _look_at(self, path: Path) -> ImageFile | None:
        """An image that is new or other than it was, when its files are whole and its time has come."""
        made_from = self._state_of(path)
        if made_from is None:
            self._forget(path)
            return None
        arrived = ImageFile(path, key_of(path.relative_to(self._folder)), made_from)
        if self._made_from(self.identity(arrived)) == made_from:
            self.pending.pop(path, None)
            self.num_done += self._is_first_look
            return None
        if self.options is None:
            return arrived
        pending = self.pending.get(path)
        if pending is None or pending.made_from != made_from:
            pending = _Pending(made_from, self._clock() + self.options.settle_seconds)
            self.pending[path] = pending
        return arrived if self._clock() >= pending.ready_at else None

    def _state_of(self, path: Path) -> str | None:
        """Sizes and times of the files that a result is made from; ``None`` where the image is gone."""
        stamps: list[tuple[int, int]] = []
        try:
            stamps.append(stamp_of(path))
            map_file = None if self._maps is None else self._maps.find(path)
            stamps += [] if map_file is None else [stamp_of(map_file)]
        except (OSError, ValueError):  # whoever reads a file says what is wrong with it
            if not stamps and not os.path.lexists(path):
                return None
        return " ".join(f"{num_bytes}:{mtime_ns}" for num_bytes, mtime_ns in stamps)

    def _forget(self, path: Path) -> None:
        logger.info("%s vanished before it was classified.", path)
        self.pending.pop(path, None)


class Counts(NamedTuple):
    """Images with a class, images that could not be used, and those that the output folder held already."""

    classified: int
    failed: int
    before: int


def classify_folder(
    classifier: AnomalyClassifier,
    images: str | Path,
    output: str | Path,
    *,
    watch: WatchOptions | None = None,
    poll_seconds: float = 0.5,
    stop_after_idle: float | None = None,
    pictures: bool = True,
    masks: bool = False,
) -> Counts:
    """Classify the images of a folder; what the output folder holds already is not done again.

    A result is kept for as long as image and anomaly map are the files that it was made from. Images that could not be
    used stand in ``errors.csv``, and are tried again by the next call. With ``watch`` it goes on with images that come
    later, looking every ``poll_seconds``, until nothing came for ``stop_after_idle`` seconds, or for ever. For
    ``output``, ``pictures`` and ``masks`` see :class:`~anomalib_ncd.deploy.line.result_folder.ResultFolder`.
    ``FileNotFoundError`` if there is no folder of images; ``ValueError`` if the output folder holds results of another
    classifier; ``OutputError`` if results can't be written; those before are complete.
    """
    images = Path(images)
    if not images.exists():
        msg = f"There is no image folder {images}. Check the path given as `images`."
        raise FileNotFoundError(msg)
    classified = failed = 0
    maps = classifier.detector if isinstance(classifier.detector, MapFolder) else None
    if maps is not None:
        maps.expect(classifier.manifest.map_kind)
    with ResultFolder(output, classifier.sha256, classifier.manifest, pictures=pictures, masks=masks) as results:
        source = FolderWatch(images, results.store.made_from, watch, maps)
        arrivals = source.poll() if watch is None else _forever(source, poll_seconds, stop_after_idle)
        for batch in _batches(arrivals, classifier.batch_size):
            # Images that are tried again later are left out.
            found = zip(batch, classifier.classify_files([one.path for one in batch]), strict=True)
            finished = [
                Finished(source.identity(one), one.name, one.made_from, result, image)
                for one, (image, result) in found
                if result.error is None or not source.put_off(one)
            ]
            results.add(finished)
            failed += sum(one.result.error is not None for one in finished)
            classified += sum(one.result.error is None for one in finished)
            logger.debug("%d images done.", classified + failed)
        return Counts(classified, failed, source.num_done)


def _forever(source: FolderWatch, poll_seconds: float, stop_after_idle: float | None) -> Iterator[ImageFile | None]:
    """Images as they come; ``None`` after each look at the folder, so that no image waits for a full batch."""
    last = time.monotonic()
    while True:
        for arrived in source.poll():
            yield arrived
            last = time.monotonic()
        yield None
        if stop_after_idle is not None and not source.pending and time.monotonic() - last > stop_after_idle:
            return
        time.sleep(poll_seconds)


def _batches(arrivals: Iterable[ImageFile | None], size: int) -> Iterator[list[ImageFile]]:
    """Batches of at most `size`, cut short at a ``None``, where there is an empty one if nothing came."""
    batch: list[ImageFile] = []
    for arrived in arrivals:
        if arrived is not None:
            batch.append(arrived)
        if arrived is None or len(batch) == size:
            yield batch
            batch = []
    yield batch
