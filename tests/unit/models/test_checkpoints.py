# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from anomalib_ncd import AnomalyNcd
from anomalib_ncd.models.checkpoints import checked_class_names, own_part, refuse_other_settings, save_model


def test_own_part_is_found_or_missed():
    assert own_part({"anomalib_ncd": {"num_heads": 4}}) == {"num_heads": 4}
    with pytest.raises(ValueError, match="no checkpoint of AnomalyNcd"):
        own_part({"state_dict": {}})


def test_other_settings_are_refused():
    saved = {"backbone": "test_vit", "num_novel_classes": 3, "num_heads": 4}
    assert refuse_other_settings(saved, "test_vit", 3, 4) is None
    with pytest.raises(ValueError, match="trained with num_heads=4, but the model has 2"):
        refuse_other_settings(saved, "test_vit", 3, 2)


def test_there_is_a_name_for_each_slot():
    assert checked_class_names(("normal", "dent"), 2) == ["normal", "dent"]
    for wrong in (["dent"], ["dent", ""], "ab"):
        with pytest.raises(ValueError, match="`class_names` must hold 2 names"):
            checked_class_names(wrong, 2)


def test_a_saved_model_loads_again(tmp_path):
    model = AnomalyNcd(backbone="test_vit", pretrained=False, mask_layers=3, num_novel_classes=3)
    model.set_base_classes([])
    model.has_normal_slot = False
    model.class_names = ["dent", "scratch", "dent"]
    model.score_range.copy_(torch.tensor([0.25, 0.75]))
    save_model(model, tmp_path / "model.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"]
    loaded = AnomalyNcd.load_from_checkpoint(tmp_path / "model.ckpt")
    assert loaded.base_class_names == []
    assert loaded.class_names == ["dent", "scratch", "dent"]
    assert loaded.novel_class_names == ["class_1", "class_2", "class_3"]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value)


def test_checkpoints_from_before_there_were_names_load(tmp_path):
    model = AnomalyNcd(backbone="test_vit", pretrained=False, mask_layers=3, num_novel_classes=3)
    save_model(model, tmp_path / "model.ckpt")
    checkpoint = torch.load(tmp_path / "model.ckpt", weights_only=True)
    del checkpoint["anomalib_ncd"]["class_names"], checkpoint["anomalib_ncd"]["has_normal_slot"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    loaded = AnomalyNcd.load_from_checkpoint(tmp_path / "old.ckpt")
    assert loaded.class_names == ["normal", "class_1", "class_2"]
