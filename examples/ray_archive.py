# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Count the classes of an archive with Ray Data: python ray_archive.py parts.zip /archive --num_workers 8.

On several machines, start Ray on each, keep images and artefact where all of them see them, and set RAY_ADDRESS.
`python -m anomalib_ncd.deploy.line.ray_actor` writes all results to Parquet files and goes on where it stopped.
"""

import argparse
from pathlib import Path

from anomalib_ncd.deploy.line.ray_actor import classify_dataset

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artefact", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--num_workers", type=int, default=2)
    options = parser.parse_args()
    paths = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in {".png", ".jpg", ".jpeg"})
    results = classify_dataset(paths, options.artefact, num_workers=options.num_workers)
    for row in results.groupby("class").count().sort("count()", descending=True).take_all():
        print(f"{row['class'] or 'could not be used'}: {row['count()']}")
