# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import errno
import hashlib
import json
import os
import pickle
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from anomalib_ncd.deploy import AnomalyClassifier, Artefact
from anomalib_ncd.deploy.packing.artefact import ArtefactError, FileEntry, Manifest, NetworkEntry, Rejection
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.regions.writing import OutputError


def build_manifest(**values):
    manifest = Manifest(
        class_names=("normal", "dent"),
        normal_slot=0,
        score_range=(0.25, 0.75),
        regions=RegionSettings(padding_ratio=0.2),
        image_size=224,
        encoder=NetworkEntry("onnx", ("encoder.onnx",)),
        files={"encoder.onnx": FileEntry("0" * 64, 1)},
    )
    return replace(manifest, **values)


def changed(**values):
    return json.dumps({**json.loads(build_manifest().to_json()), **values})


def entry(**values):
    return {"runtime": "onnx", "files": ["encoder.onnx"], "settings": {}, **values}


def one_file(**values):
    return {"encoder.onnx": {"sha256": "0" * 64, "num_bytes": 1, **values}}


def test_it_survives_json():
    manifest = build_manifest(
        detector=NetworkEntry("onnx", ("detector.onnx",), {"input_size": [64, 64]}),
        rejection=Rejection(0.3, 0.02, (0.4, 0.5)),
        merging_temperature=50.0,
        files={"encoder.onnx": FileEntry("0" * 64, 1), "detector.onnx": FileEntry("1" * 64, 2)},
    )
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert Manifest.from_json(manifest.to_json()).sha256 == manifest.sha256
    assert build_manifest().sha256 != manifest.sha256


def test_every_field_must_be_there():
    for name in json.loads(build_manifest().to_json()):
        values = json.loads(build_manifest().to_json())
        del values[name]
        with pytest.raises(ArtefactError):
            Manifest.from_json(json.dumps(values))


@pytest.mark.parametrize("value", [None, "text", -1, 10**400, float("nan"), float("inf"), True, [], {}, [[]], {"a": 1}])
def test_no_field_takes_what_is_none_of_its_kind(value):
    """Whatever stands in a field is taken as what it is, or refused with a reason, and never raises anything else."""
    fields = json.loads(build_manifest(rejection=Rejection(0.3, 0.02, (0.4, 0.5))).to_json())
    places = [(name,) for name in fields]
    places += [(name, inner) for name, one in fields.items() if isinstance(one, dict) for inner in one]
    places += [("files", "encoder.onnx", inner) for inner in ("sha256", "num_bytes")]
    for place in places:
        values = json.loads(json.dumps(fields))
        target = values
        for name in place[:-1]:
            target = target[name]
        target[place[-1]] = value
        try:
            manifest = Manifest.from_json(json.dumps(values))
        except ArtefactError:
            continue
        assert isinstance(manifest, Manifest)
        allowed = {("origin",), ("encoder", "settings"), ("class_names",), ("detector",), ("rejection",)}
        optional = {("merging_temperature",), ("normal_slot",), ("map_kind",), ("regions", "threshold")}
        is_number = place in {("rejection", "threshold"), ("regions", "min_size_ratio")}
        assert place in allowed | optional or is_number, (place, value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "manifest.json is not JSON"),
        (b"\xff\xfe\x00", "manifest.json is not JSON"),
        ("[]", "does not describe an artefact of anomalib_ncd"),
        (changed(format="other"), "does not describe an artefact of anomalib_ncd"),
        (changed(format_version=1), "format version 1, this package reads 4"),
        (changed(class_names=[]), "`class_names` of the artefact must be 1 to 10,000 names, got '0 names'"),
        (changed(class_names="normal"), "must be a list"),
        (changed(class_names=["normal", ""]), "must be text of 1 to 1,000 characters"),
        (changed(class_names=["normal", 3]), "must be text of 1 to 1,000 characters"),
        (changed(surprise=1), "lacks or misstates something"),
        (changed(score_range=[1]), "lacks or misstates something"),
        (changed(score_range=[2, 1]), "`score_range` of the artefact must be ascending"),
        (changed(score_range=[0, float("nan")]), "`score_range` of the artefact must be a finite number"),
        (changed(score_range=[0, 1e999]), "`score_range` of the artefact must be a finite number"),
        (changed(score_range=[0, 10**400]), "lacks or misstates something"),
        (changed(image_size=0), "`image_size` of the artefact must be an integer from 16 to 4096, got '0'"),
        (changed(image_size=224.0), "`image_size` of the artefact must be an integer"),
        (changed(image_size=True), "`image_size` of the artefact must be an integer"),
        (changed(merging_temperature=0), "`merging_temperature` of the artefact must be a finite number above 0"),
        (changed(normal_slot=2), "`normal_slot` of the artefact must be an integer from 0 to 1"),
        (changed(normal_slot="normal"), "`normal_slot` of the artefact must be an integer from 0 to 1"),
        (changed(map_kind="int4"), "`map_kind` of the artefact must be one of"),
        (changed(map_kind=[]), "`map_kind` of the artefact must be one of"),
        (changed(origin=[]), "`origin` of the artefact must be a dictionary"),
        (changed(regions={"sample_rate": 4}), "of another version"),
        (changed(regions=RegionSettings().to_dict() | {"padding_ratio": -1}), "`padding_ratio` must be"),
        (changed(files={"../secret": {"sha256": "0" * 64, "num_bytes": 1}}), "must be those of its networks"),
        (changed(files=one_file() | {"more.onnx": {"sha256": "0" * 64, "num_bytes": 1}}), "and no others"),
        (changed(files={}), "must be those of its networks"),
        (changed(files=one_file(sha256="00")), "`sha256` of the artefact must be 64 hexadecimal digits"),
        (changed(files=one_file(num_bytes=-1)), "`num_bytes` of the artefact must be an integer from 0"),
        (changed(encoder=entry(files=["../b.onnx"])), "'../b.onnx'"),
        (changed(encoder=entry(files=["/etc/passwd"])), "must be a plain name inside of the artefact"),
        (changed(encoder=entry(files=[".hidden"])), "must be a plain name inside of the artefact"),
        (changed(encoder=entry(files=["manifest.json"])), "must be a plain name inside of the artefact"),
        (changed(encoder=entry(files=["x" * 200])), "must be a plain name inside of the artefact"),
        (changed(encoder=entry(files=["other.onnx"])), "must be those of its networks"),
        (changed(encoder=entry(files=[])), "must be those of its networks"),
        (changed(encoder=entry(files="encoder.onnx")), "must be a list"),
        (changed(encoder=entry(files=["encoder.onnx", "encoder.onnx"])), "must be 1 for 'onnx'"),
        (changed(encoder=entry(runtime="pickle")), "`runtime` of the artefact must be one of"),
        (changed(encoder=entry(settings=[])), "`settings` of the artefact must be a dictionary"),
        (changed(detector=entry(runtime="torch")), "`detector` of the artefact must be of runtime"),
        (changed(detector=entry(settings={"more": 1})), "with `input_size` alone"),
        (changed(detector=entry(settings={"input_size": [64]})), "must be height and width"),
        (changed(detector=entry(settings={"input_size": [64, 10**9]})), "must be an integer from 1 to 4096"),
        (changed(rejection={"threshold": 1}), "lacks or misstates something"),
        (
            changed(rejection={"threshold": float("nan"), "false_reject_rate": 0.1, "similarities": [0.5]}),
            "must be a finite number",
        ),
        (
            changed(rejection={"threshold": 0.5, "false_reject_rate": 0.1, "similarities": []}),
            "rejection.similarities",
        ),
        (
            changed(rejection={"threshold": 0.5, "false_reject_rate": 1, "similarities": [0.5]}),
            "must be a finite number above 0 and below 1",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_a_reason(text, message):
    with pytest.raises(ArtefactError, match=message):
        Manifest.from_json(text)


@pytest.fixture
def folder(onnx_artefact, tmp_path):
    """A copy of an artefact that a test may change."""
    return shutil.copytree(onnx_artefact, tmp_path / "artefact")


def edit_manifest(folder, **values):
    file = folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def zipped(folder, file, **names):
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, names.get(path.stem, path.name))
    return file


def test_a_folder_and_a_zip_hold_the_same(folder, tmp_path):
    artefact = Artefact.load(folder)
    assert Artefact.load(zipped(folder, tmp_path / "artefact.zip")).sha256 == artefact.sha256
    for name in ("copy", "copy.zip"):
        artefact.save(tmp_path / name)
        assert Artefact.load(tmp_path / name, artefact.sha256).manifest == artefact.manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artefact", "artefact.zip", "copy", "copy.zip"]


def test_nothing_is_overwritten(folder):
    with pytest.raises(FileExistsError, match="exists already"):
        Artefact.load(folder).save(folder)


@pytest.mark.parametrize("name", ["copy", "copy.zip"])
def test_a_full_disk_leaves_nothing_half_written(folder, tmp_path, monkeypatch, name):
    artefact = Artefact.load(folder)

    def fail(path, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OutputError, match="can't be written: no space left on the disk"):
            artefact.save(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["artefact"]
    artefact.save(tmp_path / name)


def test_a_changed_network_is_refused(folder):
    data = bytearray((folder / "encoder.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "encoder.onnx").write_bytes(data)
    with pytest.raises(ArtefactError, match=r"'encoder.onnx' of the artefact is not the one that was packed"):
        AnomalyClassifier.load(folder, lambda image: image[..., 0])


def test_a_grown_network_is_refused_before_it_is_read(folder):
    with (folder / "encoder.onnx").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(ArtefactError, match="bytes, more than the"):
        Artefact.load(folder)


def test_a_missing_network_is_named(folder, tmp_path):
    (folder / "encoder.onnx").unlink()
    with pytest.raises(ArtefactError, match=r"lacks its file 'encoder\.onnx'"):
        Artefact.load(folder)
    with pytest.raises(ArtefactError, match=r"lacks its file 'encoder\.onnx'"):
        Artefact.load(zipped(folder, tmp_path / "artefact.zip"))


def test_a_link_is_refused(folder, tmp_path):
    (folder / "encoder.onnx").rename(tmp_path / "elsewhere")
    (folder / "encoder.onnx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtefactError, match="is a link, which could lead anywhere"):
        Artefact.load(folder)


def test_a_path_out_of_the_artefact_is_refused(folder):
    digest = json.loads((folder / "manifest.json").read_text())["files"]["encoder.onnx"]
    edit_manifest(folder, files={"../encoder.onnx": digest})
    with pytest.raises(ArtefactError, match="must be those of its networks and no others"):
        Artefact.load(folder)


def test_a_file_that_nothing_uses_is_refused_before_it_is_read(folder, monkeypatch):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "more.bin").write_bytes(b"more")
    more = {"sha256": hashlib.sha256(b"more").hexdigest(), "num_bytes": 4}
    edit_manifest(folder, files=manifest["files"] | {"more.bin": more})
    monkeypatch.setattr(Path, "read_bytes", lambda path: path.open("rb").read() if path.suffix == ".json" else 1 / 0)
    with pytest.raises(ArtefactError, match="must be those of its networks and no others"):
        Artefact.load(folder)


def test_an_encoder_of_other_classes_or_another_size_is_refused(folder, function_detector):
    edit_manifest(folder, class_names=["normal", "dark", "bright"])
    with pytest.raises(ArtefactError, match="tells 4 classes apart, but there are 3 names"):
        AnomalyClassifier.load(folder, function_detector)
    edit_manifest(folder, image_size=64)
    with pytest.raises(ArtefactError, match="can't classify regions of 64 pixels a side"):
        AnomalyClassifier.load(folder, function_detector)


def test_another_version_is_refused(folder):
    edit_manifest(folder, format_version=99)
    with pytest.raises(ArtefactError, match="format version 99"):
        Artefact.load(folder)


def test_changed_names_are_noticed_by_the_digest_of_the_whole(folder):
    before = Artefact.load(folder).sha256
    edit_manifest(folder, class_names=["normal", "fine", "fine", "fine"])
    assert Artefact.load(folder).sha256 != before
    with pytest.raises(ArtefactError, match=f"not {before}: it is another one or was tampered with"):
        Artefact.load(folder, before)


def test_a_network_that_is_no_network_is_refused(folder):
    artefact = Artefact.load(folder)
    shutil.rmtree(folder)
    Artefact.create(artefact.manifest, {"encoder.onnx": b"import os; os.abort()"}).save(folder)
    with pytest.raises(ArtefactError, match="ONNX Runtime can't load the network"):
        AnomalyClassifier.load(folder, lambda image: image[..., 0])


def test_a_pickle_in_the_place_of_safetensors_is_not_unpickled(torch_artefact, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    manifest = Artefact.load(torch_artefact).manifest
    Artefact.create(manifest, {"encoder.safetensors": pickle.dumps(Bomb())}).save(tmp_path / "bomb")
    with pytest.raises(ArtefactError, match="weights and settings don't make an encoder"):
        AnomalyClassifier.load(tmp_path / "bomb", lambda image: image[..., 0])
    assert not (tmp_path / "exploded").exists()


def test_what_is_no_artefact_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no artefact"):
        Artefact.load(tmp_path / "nothing")
    with pytest.raises(ArtefactError, match=r"lacks its file 'manifest\.json'"):
        Artefact.load(tmp_path)
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with pytest.raises(ArtefactError, match="is no readable zip"):
        Artefact.load(tmp_path / "broken.zip")
