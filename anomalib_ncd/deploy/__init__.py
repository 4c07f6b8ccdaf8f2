# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Image in, class out, on the line.

Predicting from an artefact with ONNX Runtime or OpenVINO needs NumPy, OpenCV and Pillow, and that runtime: neither
torch nor lightning nor anomalib is imported.
"""

from anomalib_ncd.deploy.classifier import AnomalyClassifier
from anomalib_ncd.deploy.detectors import Detector, load_detector_file
from anomalib_ncd.deploy.packing.artefact import Artefact, ArtefactError, Manifest, Rejection
from anomalib_ncd.regions.classes.results import ImageResult, RegionResult
from anomalib_ncd.regions.reading.listing import ImageLimits

__all__ = [
    "AnomalyClassifier",
    "Artefact",
    "ArtefactError",
    "Detector",
    "ImageLimits",
    "ImageResult",
    "Manifest",
    "RegionResult",
    "Rejection",
    "load_detector_file",
]
