# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A folder of images classified into a folder of results, once or for as long as images come."""

import logging
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from anomalib_ncd.deploy.classifier import AnomalyClassifier
from anomalib_ncd.deploy.line.folder_watch import FolderWatch, MapFolder, WatchOptions
from anomalib_ncd.deploy.line.result_folder import Finished, ResultFolder
from anomalib_ncd.regions.reading.listing import ImageFile

logger = logging.getLogger(__name__)


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

    Raises:
        FileNotFoundError: If there is no folder of images.
        ValueError: If the output folder holds results of another classifier.
        OutputError: If results can't be written; those before are complete.
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
