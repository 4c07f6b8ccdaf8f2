# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from anomalib_ncd import AnomalyNcd
from anomalib_ncd.models.checkpoints import own_part, refuse_other_settings, save_model, write_class_names
from anomalib_ncd.models.class_slots import ClassSlots
from anomalib_ncd.settings import TrainingSettings

SAVED = {
    "backbone": "vit",
    "image_size": 224,
    "num_heads": 4,
    "describer": "plain_features",
    "slots": ClassSlots((), 3).plain(),
    "num_classes_estimate": None,
    "region_settings": None,
}


@pytest.fixture
def file(tmp_path):
    torch.save({"epoch": 4, "anomalib_ncd": SAVED, "state_dict": {"w": torch.ones(3)}}, tmp_path / "m.ckpt")
    return tmp_path / "m.ckpt"


def test_names_are_put_into_a_checkpoint(file):
    assert write_class_names(file, ("normal", "a", "a"))
    checkpoint = torch.load(file, weights_only=True)
    assert checkpoint.pop("anomalib_ncd") == SAVED | {"slots": ClassSlots((), 3, ("normal", "a", "a")).plain()}
    assert checkpoint["epoch"] == 4
    assert torch.equal(checkpoint["state_dict"]["w"], torch.ones(3))
    assert [path.name for path in file.parent.iterdir()] == ["m.ckpt"]


def test_names_that_stand_there_are_not_written_again(file):
    write_class_names(file, ["normal", "a", "b"])
    stamp = file.stat().st_mtime_ns
    assert not write_class_names(file, ["normal", "a", "b"])
    assert file.stat().st_mtime_ns == stamp


def test_names_must_fit(file):
    with pytest.raises(ValueError, match="must hold 3 names"):
        write_class_names(file, ["normal", "a"])
    assert torch.load(file, weights_only=True)["anomalib_ncd"] == SAVED


def test_other_checkpoints_are_refused():
    with pytest.raises(ValueError, match="no checkpoint of AnomalyNcd"):
        own_part({"state_dict": {}})
    with pytest.raises(ValueError, match="another version of anomalib_ncd; discover the classes again"):
        own_part({"anomalib_ncd": {"backbone": "vit"}})


@pytest.mark.parametrize("name", ["slots", "describer", "num_classes_estimate", "region_settings"])
def test_checkpoints_of_other_versions_are_refused(name):
    assert own_part({"anomalib_ncd": SAVED}) == SAVED
    with pytest.raises(ValueError, match="another version of anomalib_ncd; discover the classes again"):
        own_part({"anomalib_ncd": {key: value for key, value in SAVED.items() if key != name}})


@pytest.mark.parametrize("name", ["backbone", "image_size", "num_heads"])
def test_other_settings_are_refused(name):
    refuse_other_settings(SAVED, SAVED)
    with pytest.raises(ValueError, match=f"trained with {name}="):
        refuse_other_settings(SAVED, SAVED | {name: "other"})
    with pytest.raises(ValueError, match=f"trained with {name}=None"):
        refuse_other_settings({key: value for key, value in SAVED.items() if key != name}, SAVED)


def test_a_saved_model_loads_again(tmp_path):
    model = AnomalyNcd(
        backbone="test_vit", pretrained=False, training=TrainingSettings(mask_layers=3), num_novel_classes=3
    )
    model.make_heads(ClassSlots((), 3, has_normal=False))
    model.class_names = ["dent", "scratch", "dent"]
    model.score_range.copy_(torch.tensor([0.25, 0.75]))
    save_model(model, tmp_path / "model.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"]
    loaded = AnomalyNcd.load_from_checkpoint(tmp_path / "model.ckpt")
    assert loaded.slots.base_names == ()
    assert loaded.class_names == ["dent", "scratch", "dent"]
    assert loaded.slots.default_names == ["class_1", "class_2", "class_3"]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value)


def test_features_of_another_width_are_of_another_version(tmp_path):
    """Classes of a version that described regions by fewer numbers."""
    model = AnomalyNcd(backbone="test_vit", pretrained=False, num_novel_classes=3)
    model.describe_by("plain_features")
    model.make_heads(ClassSlots((), 3))
    save_model(model, tmp_path / "model.ckpt")
    checkpoint = torch.load(tmp_path / "model.ckpt", weights_only=True)
    weight = checkpoint["state_dict"]["model.heads.weight"]
    checkpoint["state_dict"]["model.heads.weight"] = weight[..., :-1]
    torch.save(checkpoint, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match="another version of anomalib_ncd; discover the classes again"):
        AnomalyNcd.load_from_checkpoint(tmp_path / "model.ckpt")
