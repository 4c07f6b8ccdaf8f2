# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Classify an archive of images with Ray: python ray_archive.py parts.zip --images /archive --output /results.

Results go to Parquet files, and the classes are counted at the end. The same command goes on where it was stopped:
images that the files hold are left out. On several machines, start Ray on each, keep images, artefact and results where
all of them see them, and set RAY_ADDRESS.
"""

import argparse
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from anomalib_ncd.deploy.line.ray_actor import classify_dataset
from anomalib_ncd.regions.reading.listing import IMAGE_SUFFIXES, find_files, printable

logger = logging.getLogger(__name__)


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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artefact", type=Path, help="what `anomalib-ncd pack` wrote, with a detector in it")
    parser.add_argument("--images", type=Path, required=True, help="folder of images, searched recursively")
    parser.add_argument("--output", type=Path, required=True, help="folder of Parquet files, gone on with")
    parser.add_argument("--num_workers", type=int, default=2, help="actors, one core each")
    parser.add_argument("--batch_size", type=int, default=16, help="images a call")
    flags = parser.parse_args(args)
    output = flags.output.absolute()
    done = images_in(output) if output.exists() else set()
    paths = [path for path in find_files(flags.images.absolute(), IMAGE_SUFFIXES) if printable(path) not in done]
    if not paths and not done:
        parser.error(f"{flags.images} holds no images; give `--images` the folder of the archive")
    logger.info("%d images to classify, %d were done before.", len(paths), len(done))
    if paths:
        options = {"num_workers": flags.num_workers, "batch_size": flags.batch_size}
        classify_dataset(paths, flags.artefact.absolute(), **options).write_parquet(str(output))
    from pyarrow import parquet  # noqa: PLC0415

    for name, count in Counter(parquet.read_table(output, columns=["class"])["class"].to_pylist()).most_common():
        print(f"{name or 'could not be used'}: {count}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
