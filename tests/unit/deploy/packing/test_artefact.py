# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import errno
import hashlib
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest

from anomalib_ncd.deploy import AnomalyClassifier, Artefact, ArtefactError
from anomalib_ncd.regions.writing import OutputError


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
