# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from functools import partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from anomalib.data import AnomalibDataModule, Folder
from anomalib.models import Padim

from anomalib_ncd import NcdDataModule
from anomalib_ncd.data import datamodule as datamodule_module
from anomalib_ncd.data import synthetic_base
from anomalib_ncd.data.batches import ModelInputs
from anomalib_ncd.regions.cutting import fit_range
from anomalib_ncd.regions.settings import PAPER_REGIONS, RegionSettings


class FakeTrainer:
    """As much of a trainer as the datamodule asks for."""

    global_rank, world_size = 0, 1


def build(run, **arguments):
    arguments = {"images": run.images, "anomaly_maps": run.anomaly_maps} | arguments
    module = NcdDataModule(**arguments)
    module.prepare_for(ModelInputs(64))
    return module


def regions_of(module):
    return [row.box_xyxy for row in module.region_table().rows]


def test_it_is_an_anomalib_datamodule(tiny_run):
    module = build(tiny_run, base=tiny_run.base)
    assert isinstance(module, AnomalibDataModule)
    module.setup()
    assert len(module.records) == len(module.map_paths) == 18
    assert module.base_class_names == ["base_line", "base_square"]
    assert len(module.base_records) == 8
    assert module.class_ids is None
    assert module.val_dataloader() == []


def test_training_batches_mix_base_and_novel(tiny_run):
    module = build(tiny_run, base=tiny_run.base, train_batch_size=16)
    batches = list(module.train_dataloader())
    assert sum(batch.batch_size for batch in batches) == len(module.train_regions())
    assert batches[0].image.shape == (2, 16, 3, 64, 64)
    assert 0 < torch.cat([batch.is_base for batch in batches]).float().mean() < 1


def test_every_image_is_tested_once_and_in_order(tiny_run):
    module = build(tiny_run, eval_batch_size=5, labels="folders")
    batches = list(module.test_dataloader())
    assert [len(batch) for batch in batches] == [5, 5, 5, 3]
    assert [path for batch in batches for path in batch.image_path] == [str(r.path) for r in module.records]
    assert sum(len(batch.region_area) for batch in batches) == len(module.region_table())
    predicted = list(module.predict_dataloader())
    assert torch.equal(predicted[0].image, batches[0].image)


def test_workers_give_the_same_images(tiny_run):
    alone, helped = (list(build(tiny_run, num_workers=n).test_dataloader()) for n in (0, 1))
    assert torch.equal(alone[0].image, helped[0].image)


def test_labels_from_folders_number_normal_first(tiny_run):
    module = build(tiny_run, labels="folders", normal_label="square")
    module.setup()
    assert module.class_names == ["square", "good", "line"]
    assert module.class_ids == [1] * 6 + [2] * 6 + [0] * 6


def test_labels_from_a_file(tiny_run, tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("image,class\nline/000.png,scratch\ngood/001,good\n")
    module = build(tiny_run, labels=file)
    module.setup()
    assert module.class_names == ["good", "scratch"]
    assert [module.records[i].key for i, label in enumerate(module.class_ids) if label >= 0] == ["good/001", "line/000"]


def test_labels_touch_neither_regions_nor_training_batches(tiny_run):
    labelled, blind = build(tiny_run, labels="folders"), build(tiny_run)
    assert regions_of(labelled) == regions_of(blind)
    torch.manual_seed(0)
    first = next(iter(labelled.train_dataloader()))
    torch.manual_seed(0)
    second = next(iter(blind.train_dataloader()))
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.label, second.label)
    assert (first.label == 0).all()


def test_lists_narrow_images_and_base_down(tiny_run, tmp_path):
    (tmp_path / "images.txt").write_text("line/000.png\nsquare/001.png\n")
    (tmp_path / "base.txt").write_text("base_square/1.png\n")
    module = build(
        tiny_run,
        image_list=tmp_path / "images.txt",
        base=tiny_run.base,
        base_list=tmp_path / "base.txt",
    )
    module.setup()
    assert [record.key for record in module.records] == ["line/000", "square/001"]
    assert module.base_class_names == ["base_square"]


def test_images_of_an_anomalib_datamodule(tiny_run):
    source = Folder(
        name="tiny",
        root=tiny_run.images,
        normal_dir="good",
        normal_test_dir="good",
        abnormal_dir=["line", "square"],
        test_split_mode="from_dir",
        val_split_mode="none",
    )
    module = build(tiny_run, images=source, labels="folders")
    module.setup()
    assert {"line", "square"} <= set(module.class_names)
    assert len(module.map_paths) == len(module.records) >= 12


def test_the_range_given_by_hand_comes_first(tiny_run):
    module = build(tiny_run, score_range=(0.1, 2.0))
    module.prepare_for(ModelInputs(64, score_range=(0.3, 0.9)))
    assert module.fitted_score_range is None
    module.region_table()
    assert module.fitted_score_range == (0.1, 2.0)


def test_the_range_of_a_fitted_model_comes_second(tiny_run):
    module = build(tiny_run)
    module.prepare_for(ModelInputs(64, score_range=(0.25, 0.75)))
    module.region_table()
    assert module.fitted_score_range == (0.25, 0.75)


def test_a_range_is_fitted_where_the_model_has_none(tiny_run):
    module = build(tiny_run, regions=PAPER_REGIONS)
    module.prepare_for(ModelInputs(64))
    module.region_table()
    peaks = [np.load(path).max() for path in module.map_paths]
    assert module.fitted_score_range == pytest.approx((min(peaks), max(peaks)), rel=1e-6)


def test_normal_maps_move_the_range_of_other_methods_than_mebin(tiny_run):
    elements = RegionSettings(method="elements")
    module = build(tiny_run, regions=elements, normal_maps=tiny_run.anomaly_maps / "good")
    module.region_table()
    maps, normal = ([np.load(path) for path in paths] for paths in (module.map_paths, module.normal_map_paths))
    assert len(normal) == 6
    assert module.fitted_score_range == pytest.approx(fit_range(maps, "elements", normal), rel=1e-6)
    assert len(module.region_table().empty_images) == 6
    with pytest.raises(ValueError, match="of which MEBin knows nothing"):
        build(tiny_run, regions=PAPER_REGIONS, normal_maps=tiny_run.anomaly_maps / "good").region_table()


def test_many_images_without_a_region_are_warned_of(tiny_run, caplog):
    regions = RegionSettings(method="threshold", threshold=0.5)
    module = build(tiny_run, regions=regions)
    module.region_table()
    assert "Nothing was found in 6 of 18 images (method 'threshold', score range 0." in caplog.text
    caplog.clear()
    fitted = build(tiny_run, regions=regions)
    fitted.prepare_for(ModelInputs(64, score_range=(0.25, 0.75)))
    assert len(fitted.region_table().empty_images) == 6
    assert caplog.text == ""


@pytest.mark.parametrize("method", ["mebin", "elements"])
def test_every_method_warns_of_images_without_a_region(tiny_run, caplog, method):
    module = build(tiny_run, regions=RegionSettings(method=method), score_range=(5.0, 9.0))
    assert len(module.region_table().empty_images) == 18
    assert f"Nothing was found in 18 of 18 images (method '{method}', score range 5 to 9)" in caplog.text


def test_regions_follow_the_model(tiny_run):
    module = build(tiny_run)
    first = module.region_table()
    assert module.region_table() is first
    module.prepare_for(ModelInputs(64, score_range=(0.5, 3.0)))
    second = module.region_table()
    assert second is not first
    assert module.fitted_score_range == (0.5, 3.0)
    assert module.train_regions().table is second


def test_regions_are_cut_and_seen_as_the_models_were(tiny_run):
    wide = RegionSettings(padding_ratio=1.0)
    assert NcdDataModule(tiny_run.images, tiny_run.anomaly_maps).image_size == 224
    module = build(tiny_run)
    before = module.region_table()
    module.prepare_for(ModelInputs(32, regions=wide))
    assert module.region_table() is not before
    assert module.region_settings == wide
    assert regions_of(module) == regions_of(build(tiny_run, regions=wide))
    assert module.train_regions().view.image_size == 32
    assert next(iter(module.test_dataloader())).image.shape[-1] == 32


def test_settings_other_than_the_models_are_refused(tiny_run):
    module = build(tiny_run, regions=RegionSettings(padding_ratio=0.3))
    module.prepare_for(ModelInputs(64))
    module.prepare_for(ModelInputs(64, regions=RegionSettings(padding_ratio=0.3)))
    with pytest.raises(ValueError, match=r"cut with .*padding_ratio=0.1.*`regions` is .*0.3.*leave it out"):
        module.prepare_for(ModelInputs(64, regions=RegionSettings()))


def test_region_settings_are_used(tiny_run):
    wide = build(tiny_run, regions=RegionSettings(padding_ratio=1.0))
    assert regions_of(wide) != regions_of(build(tiny_run))


def test_a_work_folder_among_the_images_is_no_input(own_tiny_run):
    for _ in range(2):
        module = build(own_tiny_run, work_dir=own_tiny_run.images / "run")
        module.region_table()
        assert len(module.records) == 18
        (own_tiny_run.images / "run" / "gallery.png").touch()


def test_a_work_folder_keeps_regions(tiny_run, tmp_path, monkeypatch):
    expected = regions_of(build(tiny_run, work_dir=tmp_path))
    assert len(list((tmp_path / "regions" / "images").rglob("*.png"))) == len(expected)
    monkeypatch.setattr("anomalib_ncd.data.region_table.cut_regions", None)
    assert regions_of(build(tiny_run, work_dir=tmp_path)) == expected


def test_regions_in_memory_can_be_kept_later(tiny_run, tmp_path):
    module = build(tiny_run)
    before = module.region_table()
    module.keep_in(tmp_path / "kept")
    after = module.region_table()
    assert after.rows == before.rows
    assert (tmp_path / "kept" / "regions" / "regions.jsonl").is_file()
    module.keep_in(tmp_path / "other")
    assert module.region_table() is after
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("keeps", [True, False])
def test_maps_come_from_a_detector(tiny_run, tmp_path, monkeypatch, keeps):
    calls = []

    def predict(detector, images, folder, bit_depth):
        assert bit_depth == 16
        calls.append((detector, [image.key for image in images], folder))
        return [tiny_run.anomaly_maps / f"{image.key}.npy" for image in images]

    detector = Padim(backbone="resnet18", pre_trained=False, layers=["layer1"], n_features=10)
    monkeypatch.setattr(datamodule_module, "predict_anomaly_maps", predict)
    loaded = {(Padim, "detector.ckpt"): detector}
    monkeypatch.setattr(datamodule_module, "load_detector", lambda *given: loaded[given])
    work_dir = tmp_path if keeps else None
    module = build(tiny_run, anomaly_maps=detector, detector_ckpt="detector.ckpt", work_dir=work_dir)
    module.setup("fit")
    module.setup("test")
    assert not calls  # nothing is written yet
    module.region_table()
    module.region_table()
    [(used, keys, folder)] = calls
    assert used is detector
    assert keys == [record.key for record in module.records]
    assert folder == tmp_path / "anomaly_maps" if keeps else folder.parent.is_dir()
    assert regions_of(module) == regions_of(build(tiny_run))


def test_a_detector_in_several_processes_is_refused(tiny_run):
    detector = Padim(backbone="resnet18", pre_trained=False, layers=["layer1"], n_features=10)
    module = build(tiny_run, anomaly_maps=detector)
    module.trainer = FakeTrainer()
    module.trainer.world_size = 2
    with pytest.raises(ValueError, match=r"several processes.*folder of maps"):
        module.setup()


@pytest.mark.parametrize("name", ["images", "anomaly_maps", "base"])
def test_missing_folders_are_named(tiny_run, tmp_path, name):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        build(tiny_run, **{name: tmp_path / "nowhere"}).setup()


@pytest.mark.parametrize("name", ["images", "anomaly_maps"])
def test_empty_folders_are_named(tiny_run, tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty holds no"):
        build(tiny_run, **{name: tmp_path / "empty"}).setup()


def test_an_image_without_a_map_is_named(own_tiny_run):
    (own_tiny_run.anomaly_maps / "line" / "003.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 18 images have no anomaly map.*line/003\.png"):
        build(own_tiny_run).setup()


def test_a_setup_that_failed_can_be_mended(own_tiny_run):
    lost = own_tiny_run.anomaly_maps / "line" / "003.npy"
    anomaly_map = np.load(lost)
    lost.unlink()
    module = build(own_tiny_run)
    with pytest.raises(FileNotFoundError):
        module.setup()
    np.save(lost, anomaly_map)
    module.setup()
    assert len(module.map_paths) == 18


def test_a_map_with_nan_is_named(own_tiny_run):
    broken = own_tiny_run.anomaly_maps / "good" / "002.npy"
    np.save(broken, np.full((64, 64), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"good/002\.npy.*NaN"):
        build(own_tiny_run).region_table()


def test_constant_maps_give_whole_images(own_tiny_run):
    for path in own_tiny_run.anomaly_maps.rglob("*.npy"):
        np.save(path, np.full((64, 64), 0.5, np.float32))
    module = build(own_tiny_run, regions=PAPER_REGIONS)
    assert regions_of(module) == [(0, 0, 64, 64)] * 18
    assert all(row.area == 0 for row in module.region_table().rows)
    assert len(list(module.test_dataloader())) == 1
    module = build(own_tiny_run)
    assert len(module.region_table().empty_images) == 18
    assert not module.region_table().rows


def test_one_constant_map_among_others_is_a_whole_image(own_tiny_run):
    np.save(own_tiny_run.anomaly_maps / "good" / "000.npy", np.zeros((64, 64), np.float32))
    table = build(own_tiny_run, regions=PAPER_REGIONS).region_table()
    [row] = table.rows_of_image[0]
    assert table.rows[row].box_xyxy == (0, 0, 64, 64)
    assert table.rows[row].score == 0


def test_one_image_is_enough_to_cut(tiny_run):
    one = build(tiny_run, images=tiny_run.images / "square/000.png", anomaly_maps=tiny_run.anomaly_maps / "square")
    [batch] = one.test_dataloader()
    assert len(batch) == 1
    assert one.region_table().rows[0].area > 100


def test_good_images_alone_are_cut(tiny_run):
    module = build(
        tiny_run,
        images=tiny_run.images / "good",
        anomaly_maps=tiny_run.anomaly_maps / "good",
        normal_label="good",
    )
    assert len(module.region_table()) >= 6
    [batch] = module.test_dataloader()
    assert len(batch) == 6


def test_maps_of_other_sizes_will_do(own_tiny_run):
    path = own_tiny_run.anomaly_maps / "square" / "000.npy"
    np.save(path, cv2.resize(np.load(path), (96, 96)))
    table = build(own_tiny_run).region_table()
    [row] = table.rows_of_image[12]
    assert table.rows[row].area == pytest.approx(18 * 18, rel=0.5)


def test_base_and_novel_classes_may_share_names(own_tiny_run):
    for part in ("images", "masks"):
        folder = own_tiny_run.base / part
        (folder / "base_line").rename(folder / "line")
    module = build(own_tiny_run, base=own_tiny_run.base, labels="folders")
    module.setup()
    assert module.base_class_names == ["base_square", "line"]
    assert module.class_names == ["good", "line", "square"]
    assert (module.train_regions().labels[~module.train_regions().is_base] == 0).all()


def test_a_base_class_without_masks_is_named(own_tiny_run):
    for path in (own_tiny_run.base / "masks" / "base_line").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"4 base images of the classes \['base_line'\] have no mask"):
        build(own_tiny_run, base=own_tiny_run.base).setup()


def test_a_damaged_image_is_named(own_tiny_run):
    (own_tiny_run.images / "line" / "001.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"Image .*line/001\.png can't be read"):
        build(own_tiny_run).region_table()


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_every_image_comes_once_over_all_processes(tiny_run, world_size):
    module = build(tiny_run)
    module.trainer = FakeTrainer()
    module.trainer.strategy = SimpleNamespace(root_device=torch.device("cpu"))
    module.trainer.world_size, drawn = world_size, []
    for module.trainer.global_rank in range(world_size):
        drawn.append(list(module.test_dataloader().sampler))
    assert sorted(index for indices in drawn for index in indices) == list(range(18))
    assert max(map(len, drawn)) - min(map(len, drawn)) <= 1
    assert all(indices == sorted(indices) for indices in drawn)


def test_fewer_images_than_processes_are_refused(tiny_run):
    module = build(tiny_run)
    module.trainer = FakeTrainer()
    module.trainer.world_size = 19
    module.trainer.strategy = None
    with pytest.raises(ValueError, match="18 images can't be shared among 19 processes"):
        module.test_dataloader()


def test_anomalib_datamodules_prepare_their_data_first(tiny_run, monkeypatch):
    source, calls = Folder(name="tiny", root=tiny_run.images, normal_dir="good"), []
    monkeypatch.setattr(source, "prepare_data", lambda: calls.append("prepared"))
    build(tiny_run).prepare_data()
    assert calls == []
    build(tiny_run, images=source).prepare_data()
    assert calls == ["prepared"]


@pytest.fixture
def synthetic(monkeypatch):
    monkeypatch.setattr(synthetic_base, "KINDS", ("crack", "hole"))
    monkeypatch.setattr(synthetic_base, "NUM_PER_CLASS", 2)
    return partial(build, base="synthetic")


def test_synthetic_base_classes_are_painted_when_training_asks_for_them(synthetic, tiny_run, tmp_path, monkeypatch):
    module = synthetic(tiny_run, normal_images=tiny_run.images / "good", work_dir=tmp_path)
    module.setup()
    assert module.base_class_names == ["crack", "hole"]
    assert not (tmp_path / "synthetic_base").exists()
    regions = module.train_regions()
    num_novel = len(module.region_table())
    assert regions.num_base == 4
    assert regions.is_base.tolist() == [True] * (4 + num_novel) + [False] * num_novel
    assert regions.labels[:5].tolist() == [0, 0, 1, 1, 2]
    again = synthetic(tiny_run, normal_images=tiny_run.images / "good", work_dir=tmp_path).train_regions()
    assert again.fingerprint() == regions.fingerprint()
    monkeypatch.setattr(synthetic_base, "KINDS", ("hole", "stain"))
    other = synthetic(tiny_run, work_dir=tmp_path)
    assert other.train_regions().fingerprint() != regions.fingerprint()


def test_synthetic_base_classes_need_no_folder_and_no_normal_images(synthetic, tiny_run):
    module = synthetic(tiny_run)
    first, second = module.train_regions().load(0), synthetic(tiny_run).train_regions().load(0)
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert len(module.base_records) == 4


def test_what_synthetic_base_classes_cant_use_is_refused(synthetic, tiny_run, tmp_path):
    with pytest.raises(ValueError, match="`base_list` narrows a folder"):
        synthetic(tiny_run, base_list=tmp_path / "list.txt").setup()
    with pytest.raises(FileNotFoundError, match=r"nowhere.*`normal_images`"):
        synthetic(tiny_run, normal_images=tmp_path / "nowhere").setup()
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty holds no images"):
        synthetic(tiny_run, normal_images=tmp_path / "empty").setup()


def test_normal_images_are_examples_of_normal_whatever_the_base(tiny_run):
    without = build(tiny_run, base=None).train_regions()
    assert not without.is_base.any()
    regions = build(tiny_run, base=None, normal_images=tiny_run.images / "good").train_regions()
    assert int(regions.is_base.sum()) == len(without)
    assert regions.num_base == 0
    with_base = build(tiny_run, base=tiny_run.base, normal_images=tiny_run.images / "good").train_regions()
    assert with_base.labels[with_base.num_base].item() == 2


def test_normal_training_images_of_a_datamodule_are_examples_only_where_asked_for(tiny_run):
    source = Folder(name="tiny", root=tiny_run.images, normal_dir="good", abnormal_dir="line", num_workers=0)
    assert not build(tiny_run, images=source, base=None).train_regions().is_base.any()
    module = build(tiny_run, images=source, normal_images=source, base=None)
    assert int(module.train_regions().is_base.sum()) == len(module.region_table())
    assert len(module.normal_records) == len(source.train_data.samples)


def test_maps_of_another_kind_than_the_models_are_refused(own_tiny_run):
    module = NcdDataModule(own_tiny_run.images, own_tiny_run.anomaly_maps)
    module.prepare_for(ModelInputs(64, score_range=(0.2, 1.1), regions=RegionSettings(), map_kind="uint8"))
    with pytest.raises(ValueError, match=r"the run of the model holds uint8, .*000\.npy float"):
        module.region_table()
    module.prepare_for(ModelInputs(64, score_range=(0.2, 1.1), regions=RegionSettings(), map_kind="float"))
    assert module.region_table().map_kind == "float"
