# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import json
from dataclasses import replace

import pytest

from anomalib_ncd.deploy.packing.manifest import ArtefactError, FileEntry, Manifest, NetworkEntry, Rejection
from anomalib_ncd.regions.settings import RegionSettings


def build_manifest(**values):
    manifest = Manifest(
        class_names=("normal", "dent"),
        score_range=(0.25, 0.75),
        regions=RegionSettings(peak_if_empty=True),
        image_size=224,
        encoder=NetworkEntry("onnx", ("encoder.onnx",)),
        files={"encoder.onnx": FileEntry("00", 1), "detector.onnx": FileEntry("11", 2)},
    )
    return replace(manifest, **values)


def changed(**values):
    return json.dumps({**json.loads(build_manifest().to_json()), **values})


def test_it_survives_json():
    manifest = build_manifest(
        detector=NetworkEntry("onnx", ("detector.onnx",), {"input_size": [64, 64]}),
        rejection=Rejection(0.3, 0.02),
        merging_temperature=50.0,
        image_threshold=1.5,
    )
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert Manifest.from_json(manifest.to_json()).sha256 == manifest.sha256
    assert build_manifest().sha256 != manifest.sha256


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "manifest.json is not JSON"),
        (b"\xff\xfe\x00", "manifest.json is not JSON"),
        ("[]", "does not describe an artefact of anomalib_ncd"),
        (changed(format="other"), "does not describe an artefact of anomalib_ncd"),
        (changed(format_version=1), "format version 1, this package reads 3"),
        (changed(class_names=[]), "names no class"),
        (changed(surprise=1), "lacks or misstates something"),
        (changed(score_range=[1]), "lacks or misstates something"),
        (changed(score_range=[2, 1]), "not finite and ascending"),
        (changed(score_range=[0, float("nan")]), "not finite and ascending"),
        (changed(regions={"sample_rate": 4}), "of another version"),
        (changed(regions=RegionSettings().to_dict() | {"padding_ratio": -1}), "`padding_ratio` must be"),
        (changed(files={"../secret": {"sha256": "00", "num_bytes": 1}}), "'../secret', which is no plain name"),
        (changed(files={"/etc/passwd": {"sha256": "00", "num_bytes": 1}}), "no plain name"),
        (changed(files={".hidden": {"sha256": "00", "num_bytes": 1}}), "no plain name"),
        (changed(encoder={"runtime": "onnx", "files": ["a/b.onnx"], "settings": {}}), "no plain name"),
        (changed(encoder={"runtime": "onnx", "files": ["other.onnx"], "settings": {}}), "no digest for its file"),
        (changed(encoder={"runtime": "pickle", "files": ["encoder.onnx"], "settings": {}}), "runtime 'pickle'"),
        (changed(rejection={"threshold": 1}), "lacks or misstates something"),
        (changed(rejection={"threshold": float("nan"), "false_reject_rate": 0.1}), "threshold=nan"),
        (changed(rejection={"threshold": 0.5, "false_reject_rate": 1}), "false_reject_rate=1"),
    ],
)
def test_what_is_wrong_is_refused_with_a_reason(text, message):
    with pytest.raises(ArtefactError, match=message):
        Manifest.from_json(text)
