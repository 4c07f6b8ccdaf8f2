# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Archives of millions of images: ``AnomalyClassifier`` as the actor of ``ray.data``.

Needs the extra ``[ray]``. Ray shares the images out, starts the actors, and gives the batches of an actor that died to
another one; on a cluster, images and artefact must lie where every machine can read them::

    python -m anomalib_ncd.deploy.line.ray_actor ARTEFACT --images archive --output results --num_workers 16

The same command goes on where it was stopped: images that the Parquet files in the output folder hold are left out.
"""

import argparse
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anomalib_ncd.deploy.classifier import AnomalyClassifier
from anomalib_ncd.deploy.detectors import Detector
from anomalib_ncd.regions.reading.file_bytes import printable
from anomalib_ncd.regions.reading.listing import IMAGE_SUFFIXES, find_files

logger = logging.getLogger(__name__)


class RayClassifier:
    """What an actor keeps between its batches: the classifier, with one thread, as Ray plans one core an actor."""

    def __init__(self, artefact: str, detector: Detector | None = None) -> None:
        self.classifier = AnomalyClassifier.load(artefact, detector, num_threads=1, keep_masks=False)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Classify a batch of paths, text or bytes in the column ``image``.

        The whole result stands as JSON in ``result``. Strings and numbers are never missing: ``""`` and 0 stand for
        nothing.
        """
        found = list(self.classifier.stream([os.fsdecode(path) for path in batch["image"]], on_error="report"))
        return {
            "image": np.array([result.image for result in found]),
            "class": np.array([result.class_name for result in found]),
            "confidence": np.array([result.confidence for result in found], dtype=np.float32),
            "normal": np.array([result.is_normal for result in found]),
            "unknown": np.array([result.is_unknown for result in found]),
            "error": np.array([result.error or "" for result in found]),
            "result": np.array([json.dumps(result.to_dict()) for result in found]),
        }


def classify_dataset(
    paths: Sequence[str | Path],
    artefact: str | Path,
    *,
    detector: Detector | None = None,
    num_workers: int = 2,
    batch_size: int = 16,
) -> Any:  # noqa: ANN401 - a ray.data.Dataset; Ray is optional
    """Plan the classification of many images, one core an actor; Ray starts once the data set is written.

    Returns a ``ray.data.Dataset`` with one row an image, see :class:`RayClassifier`, in any order.
    ``ModuleNotFoundError`` if Ray is not installed.
    """
    try:
        import ray.data  # noqa: PLC0415
    except ModuleNotFoundError as error:
        msg = "Classifying on many machines needs Ray: `pip install 'anomalib-ncd[ray]'`."
        raise ModuleNotFoundError(msg) from error
    rows = [{"image": os.fsencode(path)} for path in paths]  # as bytes, since a name may be no UTF-8
    # More blocks than workers, so that none of them waits long for the last one.
    num_blocks = max(1, min(-(-len(rows) // batch_size), 64 * num_workers))
    return ray.data.from_items(rows, override_num_blocks=num_blocks).map_batches(
        RayClassifier,
        fn_constructor_args=(str(artefact), detector),
        compute=ray.data.ActorPoolStrategy(size=num_workers),
        batch_size=batch_size,
        num_cpus=1,
    )


def images_in(folder: Path) -> set[str]:
    """Images that the Parquet files of a folder hold; a file that was cut off by a kill is deleted."""
    from pyarrow import ArrowInvalid, parquet  # noqa: PLC0415 - it comes with Ray's data sets

    found: set[str] = set()
    for file in sorted(folder.glob("*.parquet")):
        try:
            found.update(parquet.read_table(file, columns=["image"])["image"].to_pylist())
        except ArrowInvalid:  # noqa: PERF203 - such a file ends with its index, so that a part of it can't be read at all
            logger.warning("%s is cut off; its images are classified again.", file)
            file.unlink()
    return found


def main(args: Sequence[str] | None = None) -> None:
    """Classify a folder into Parquet files."""
    parser = argparse.ArgumentParser(description="Classify an archive of images with Ray.")
    parser.add_argument("artefact", type=Path, help="what `anomalib-ncd pack` wrote, with a detector in it")
    parser.add_argument("--images", type=Path, required=True, help="folder of images, searched recursively")
    parser.add_argument("--output", type=Path, required=True, help="folder of Parquet files, gone on with")
    parser.add_argument("--num_workers", type=int, default=2, help="actors, one core each")
    parser.add_argument("--batch_size", type=int, default=16, help="images a call")
    flags = parser.parse_args(args)
    output = flags.output.absolute()
    done = images_in(output) if output.exists() else set()
    paths = [path for path in find_files(flags.images.absolute(), IMAGE_SUFFIXES) if printable(path) not in done]
    logger.info("%d images to classify, %d were done before.", len(paths), len(done))
    if paths:
        options = {"num_workers": flags.num_workers, "batch_size": flags.batch_size}
        classify_dataset(paths, flags.artefact.absolute(), **options).write_parquet(str(output))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
