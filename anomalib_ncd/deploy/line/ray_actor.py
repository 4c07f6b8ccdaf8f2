# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Archives of millions of images: ``AnomalyClassifier`` as the actor of ``ray.data``, with the extra ``[ray]``.

Ray shares the images out, starts the actors, and gives the batches of an actor that died to another one; on a cluster,
images and artefact must lie where every machine can read them. ``examples/ray_archive.py`` writes all results to
Parquet files and goes on where it was stopped.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anomalib_ncd.deploy.classifier import AnomalyClassifier
from anomalib_ncd.deploy.detectors import Detector


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
) -> Any:
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
