# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import copy
import logging
import pickle

import cv2
import numpy as np
import pytest
import torch
from anomalib.data import DepthBatch, ImageBatch, InferenceBatch
from anomalib.post_processing import PostProcessor
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anomalib_ncd.post_processing import MEBin, MEBinBatch, MEBinItem, masks_at_file_size
from anomalib_ncd.post_processing.mebin import add_mebin_results
from anomalib_ncd.regions.mebin import binarize

RESULTS = (torch.eye(4).bool().repeat(2, 1, 1), torch.tensor([0.5, 0.25]).double(), torch.tensor([4, 1]))


@pytest.fixture
def batch():
    batch = ImageBatch(image=torch.rand(2, 3, 4, 4), image_path=["a.png", "b.png"], gt_label=torch.tensor([0, 1]))
    add_mebin_results(batch, *RESULTS)
    return batch


def test_same_object_gets_the_results(batch):
    assert isinstance(batch, MEBinBatch)
    assert batch.threshold.tolist() == [0.5, 0.25]
    assert batch.num_anomalies.tolist() == [4, 1]
    assert torch.equal(batch.pred_mask, RESULTS[0])
    assert batch.gt_label.tolist() == [False, True]


def test_items_carry_results(batch):
    items = list(batch)
    assert all(isinstance(item, MEBinItem) for item in items)
    assert [int(item.num_anomalies) for item in items] == [4, 1]
    assert [item.image_path for item in items] == ["a.png", "b.png"]


def test_arrays_carry_results(batch):
    arrays = batch.to_numpy()
    np.testing.assert_array_equal(arrays.threshold, [0.5, 0.25])
    assert [int(item.num_anomalies) for item in arrays] == [4, 1]
    assert float(next(iter(batch)).to_numpy().threshold) == 0.5


def test_update_and_keys_know_the_fields(batch):
    batch.update(threshold=torch.zeros(2))
    assert batch["threshold"].tolist() == [0, 0]
    assert "num_anomalies" in batch.keys(include_none=False)


def test_other_batches_get_attributes():
    batch = DepthBatch(image=torch.rand(2, 3, 4, 4), depth_map=torch.rand(2, 1, 4, 4))
    add_mebin_results(batch, *RESULTS)
    assert type(batch) is DepthBatch
    assert batch.num_anomalies.tolist() == [4, 1]


def test_masks_at_file_size(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.png", "b.png")]
    for path, size in zip(paths, [(8, 16), (4, 4)], strict=True):
        Image.new("L", size).save(path)
    batch = ImageBatch(image=torch.rand(2, 3, 4, 4), image_path=paths, pred_mask=RESULTS[0])
    masks = masks_at_file_size(batch)
    np.testing.assert_array_equal(masks[0], np.kron(np.eye(4), np.ones((4, 2))))
    np.testing.assert_array_equal(masks[1], np.eye(4))
    np.testing.assert_array_equal(masks_at_file_size(batch.items[0])[0], masks[0])


def test_masks_at_file_size_needs_masks():
    with pytest.raises(ValueError, match="must have `pred_mask` and `image_path`"):
        masks_at_file_size(ImageBatch(image=torch.rand(1, 3, 4, 4)))


def blob_map(peaks, size=48, noise=0.05, seed=0):
    """A noisy map with a square of each peak."""
    anomaly_map = np.random.default_rng(seed).uniform(0, noise, (size, size)).astype(np.float32)
    for index, peak in enumerate(peaks):
        left = 2 + 14 * index
        anomaly_map[8:20, left : left + 12] = peak
    return anomaly_map


VALIDATION = [blob_map([peak], seed=index) for index, peak in enumerate([0.2, 0.6, 1.0])]


def batch_of(*maps, scores=None, image_size=(48, 48)):
    anomaly_map = torch.from_numpy(np.stack(maps))
    scores = anomaly_map.amax((1, 2)) if scores is None else scores
    gt_mask = anomaly_map > 0.3
    images = torch.zeros(len(maps), 3, *image_size)
    return ImageBatch(image=images, anomaly_map=anomaly_map, pred_score=scores, gt_label=scores > 0.3, gt_mask=gt_mask)


def fit(post_processor, *maps, batch_size=2):
    for start in range(0, len(maps), batch_size):
        post_processor.on_validation_batch_end(None, None, batch_of(*maps[start : start + batch_size]))
    post_processor.on_validation_epoch_end(None, None)
    return post_processor


def predict(post_processor, *maps, **kwargs):
    batch = batch_of(*maps, **kwargs)
    post_processor.post_process_batch(batch)
    return batch


@settings(deadline=None, max_examples=30, derandomize=True)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_mask_depends_on_the_image_alone(data, seed):
    rng = np.random.default_rng(seed)
    noise = rng.random((6, 20, 20), dtype=np.float32)
    maps = [cv2.GaussianBlur(sample, (7, 7), 0) for sample in noise]
    post_processor = MEBin(score_range=(0.4, 0.6), min_interval_len=2, erosion_size=2)
    alone = [predict(post_processor, anomaly_map, image_size=(20, 20)) for anomaly_map in maps]
    order = data.draw(st.permutations(range(len(maps))))
    company = order[: data.draw(st.integers(1, len(maps)))]
    together = predict(post_processor, *(maps[index] for index in company), image_size=(20, 20))
    for position, index in enumerate(company):
        assert torch.equal(together.pred_mask[position], alone[index].pred_mask[0])
        assert together.threshold[position] == alone[index].threshold[0]
        assert together.num_anomalies[position] == alone[index].num_anomalies[0]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_range_is_that_of_the_validation_set(batch_size):
    post_processor = fit(MEBin(), *VALIDATION, batch_size=batch_size)
    assert post_processor.settings.score_range == tuple(float(np.float32(peak)) for peak in (0.2, 1.0))


def test_equals_functional_on_the_raw_map():
    post_processor = fit(MEBin(erosion_size=3), *VALIDATION)
    maps = [blob_map([0.8, 0.9, 3.0], seed=7), blob_map([0.1], seed=8)]
    batch = predict(post_processor, *maps)
    for index, anomaly_map in enumerate(maps):
        expected = binarize(anomaly_map, post_processor.settings.score_range, erosion_size=3)
        np.testing.assert_array_equal(batch.pred_mask[index].numpy(), expected.mask)
        assert float(batch.threshold[index]) == expected.threshold
        assert int(batch.num_anomalies[index]) == expected.num_components
    assert batch.num_anomalies.tolist() == [3, 0]


def test_equals_golden(golden_maps):
    golden = golden_maps.mebin[6]
    maps = torch.from_numpy(np.stack(golden_maps.maps)).float()
    post_processor = MEBin()
    for batch in maps.split(64):
        post_processor.on_validation_batch_end(
            None, None, ImageBatch(image=batch[:, None].expand(-1, 3, -1, -1), anomaly_map=batch)
        )
    post_processor.on_validation_epoch_end(None, None)
    masks, thresholds, counts = post_processor.binarize(maps)
    np.testing.assert_array_equal(np.packbits(masks.numpy(), axis=-1), golden["masks"])
    np.testing.assert_array_equal(counts, golden["est_anomaly_num"])
    # Golden thresholds are those of integer maps.
    np.testing.assert_array_equal(np.floor(thresholds), golden["thresholds"])


def test_all_but_masks_is_anomalibs():
    ours, theirs = fit(MEBin(), *VALIDATION), fit(PostProcessor(), *VALIDATION)
    maps = [blob_map([0.3]), blob_map([2.0])]
    mine, default = predict(ours, *maps), predict(theirs, *maps)
    for field in ("anomaly_map", "pred_score", "pred_label"):
        assert torch.equal(getattr(mine, field), getattr(default, field))
    predictions = InferenceBatch(pred_score=torch.tensor([0.3, 2.0]), anomaly_map=torch.from_numpy(np.stack(maps)))
    mine, default = ours(predictions), theirs(predictions)
    for field in ("anomaly_map", "pred_score", "pred_label"):
        assert torch.equal(getattr(mine, field), getattr(default, field))


def test_forward_gives_the_same_masks():
    post_processor = fit(MEBin(), *VALIDATION)
    maps = [blob_map([0.3, 0.8]), blob_map([2.0])]
    raw = torch.from_numpy(np.stack(maps))[:, None]
    result = post_processor(InferenceBatch(pred_score=raw.amax((1, 2, 3)), anomaly_map=raw))
    assert result.pred_mask.shape == raw.shape
    assert torch.equal(result.pred_mask[:, 0], predict(post_processor, *maps).pred_mask)


def test_image_with_lowest_peak_has_no_mask():
    post_processor = fit(MEBin(), *VALIDATION)
    batch = predict(post_processor, VALIDATION[0])
    assert batch.num_anomalies.tolist() == [0]
    assert not batch.pred_mask.any()
    assert batch.threshold.tolist() == [1.0]


def test_validation_without_normal_images_misses_weak_anomalies():
    post_processor = fit(MEBin(), blob_map([0.6]), blob_map([0.8]), blob_map([1.0]))
    assert predict(post_processor, blob_map([0.5]), blob_map([0.9])).num_anomalies.tolist() == [0, 1]


def test_hot_image_squeezes_the_others_unless_it_is_left_out():
    maps = [blob_map([peak], seed=index) for index, peak in enumerate([0.2, *np.linspace(0.5, 1, 18), 60])]
    plain, robust = fit(MEBin(), *maps), fit(MEBin(robust_range=True), *maps)
    anomalies = [blob_map([0.7]), blob_map([0.9, 0.8]), blob_map([60])]
    assert predict(plain, *anomalies).num_anomalies.tolist() == [0, 0, 1]
    assert predict(robust, *anomalies).num_anomalies.tolist() == [1, 2, 1]


def test_a_robust_range_is_that_without_the_hot_image():
    maps = [blob_map([peak], seed=index) for index, peak in enumerate([0.2, 0.6, 1.0, 60])]
    robust = fit(MEBin(robust_range=True), *maps)
    assert robust.settings == fit(MEBin(), *maps[:3]).settings
    restored = MEBin()
    restored.load_checkpoint_config(robust.checkpoint_config())
    restored.load_state_dict(robust.state_dict())
    assert restored.robust_range
    assert restored.settings == robust.settings


def test_single_validation_image_uses_its_lowest_value():
    post_processor = fit(MEBin(), VALIDATION[1])
    assert post_processor.settings.score_range == (float(VALIDATION[1].min()), float(VALIDATION[1].max()))


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (64, 64), (33, 517), (512, 512)])
def test_any_map_size(size):
    anomaly_map = torch.rand(2, *size)
    masks, thresholds, counts = MEBin(score_range=(0.1, 0.9), scale_erosion=True).binarize(anomaly_map)
    assert masks.shape == anomaly_map.shape
    assert masks.dtype == torch.bool
    assert thresholds.shape == counts.shape == (2,)


def test_scaled_erosion_finds_the_same_in_maps_of_any_size():
    small = blob_map([0.9, 0.7], size=64, noise=0.0)
    post_processor = MEBin(score_range=(0, 1), erosion_size=12, scale_erosion=True)
    for factor in (1, 2, 4):
        large = torch.from_numpy(np.kron(small, np.ones((factor, factor), dtype=np.float32)))[None]
        masks, _, counts = post_processor.binarize(large)
        assert counts.tolist() == [2]
        # 12 px of 256 are 3 px of a 64 px map: an erosion by n takes n - 1 px off a square's side.
        assert int(masks.sum()) == 2 * (12 * factor - (3 * factor - 1)) ** 2


def test_masks_at_image_size():
    post_processor = MEBin(score_range=(0, 1), mask_size="image")
    mask = predict(post_processor, blob_map([0.9]), image_size=(96, 144)).pred_mask
    small = predict(MEBin(score_range=(0, 1)), blob_map([0.9])).pred_mask
    assert torch.equal(mask[0], small[0].repeat_interleave(2, 0).repeat_interleave(3, 1))


def test_never_fitted_warns_once_and_uses_own_range(caplog):
    post_processor = MEBin()
    with caplog.at_level(logging.WARNING):
        batch = predict(post_processor, blob_map([0.9]), blob_map([90.0]))
        predict(post_processor, blob_map([0.9]))
    assert len(caplog.records) == 1
    assert "score range was never fitted" in caplog.text
    assert "Engine.validate" in caplog.text
    assert batch.num_anomalies.tolist() == [1, 1]


def test_range_by_hand_is_not_refitted():
    post_processor = fit(MEBin(score_range=(0, 5)), *VALIDATION)
    assert post_processor.settings.score_range == (0.0, 5.0)


def test_switches_of_the_parent():
    predictions = InferenceBatch(pred_score=torch.ones(1), anomaly_map=torch.rand(1, 8, 8))
    assert MEBin(score_range=(0, 1), enable_thresholding=False)(predictions).pred_mask is None
    batch = predict(MEBin(score_range=(0, 1), enable_thresholding=False), blob_map([0.9]))
    assert batch.pred_mask is None
    no_map = ImageBatch(image=torch.zeros(1, 3, 8, 8), pred_score=torch.ones(1))
    MEBin(score_range=(0, 1)).post_process_batch(no_map)
    assert no_map.pred_mask is None


def test_checkpoint_config_holds_all_settings():
    settings = {
        "score_range": (0.1, 0.7),
        "robust_range": True,
        "sample_rate": 3,
        "min_interval_len": 7,
        "erosion_size": 2,
        "scale_erosion": True,
        "mask_size": "image",
        "enable_normalization": False,
        "image_sensitivity": 0.75,
    }
    config = MEBin(**settings).checkpoint_config()
    restored = MEBin()
    restored.load_checkpoint_config(config)
    assert restored.checkpoint_config() == config
    assert config.items() >= settings.items()


def test_state_dict_keeps_the_fitted_range(tmp_path):
    post_processor = fit(MEBin(), *VALIDATION)
    torch.save(post_processor.state_dict(), tmp_path / "state.pt")
    restored = MEBin()
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert restored.settings == post_processor.settings


def test_state_dict_of_another_post_processor_loads_unfitted():
    post_processor = fit(MEBin(), *VALIDATION)
    post_processor.load_state_dict(PostProcessor().state_dict())
    assert post_processor.settings.score_range is None


def test_copies_and_pickles():
    post_processor = fit(MEBin(), *VALIDATION)
    for clone in (copy.deepcopy(post_processor), pickle.loads(pickle.dumps(post_processor))):  # noqa: S301
        assert clone.settings == post_processor.settings


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision(dtype):
    maps = torch.from_numpy(blob_map([0.9]))[None].to(dtype)
    assert MEBin(score_range=(0, 1)).binarize(maps).num_anomalies.tolist() == [1]


def test_empty_batch():
    masks, thresholds, counts = MEBin(score_range=(0, 1)).binarize(torch.zeros(0, 1, 8, 8))
    assert masks.shape == (0, 1, 8, 8)
    assert len(thresholds) == len(counts) == 0


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"score_range": "train"}, "`score_range` must be"),
        ({"score_range": (1, 1)}, "two ascending numbers"),
        ({"score_range": (0, float("inf"))}, "two ascending numbers"),
        ({"score_range": (0, 1, 2)}, "two ascending numbers"),
        ({"mask_size": "file"}, "`mask_size` must be"),
        ({"sample_rate": 0}, "`sample_rate` must be"),
        ({"min_interval_len": 0}, "`min_interval_len` must be"),
        ({"erosion_size": -1}, "`erosion_size` must be"),
    ],
)
def test_bad_settings_raise(setting, match):
    with pytest.raises(ValueError, match=match):
        MEBin(**setting)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_batch_equals_cpu():
    maps = torch.from_numpy(np.stack([blob_map([0.9, 0.5]), blob_map([0.1])]))
    post_processor = MEBin(score_range=(0.2, 1.0)).cuda()
    result = post_processor.binarize(maps.cuda())
    assert result.pred_mask.device.type == "cuda"
    assert torch.equal(result.pred_mask.cpu(), post_processor.binarize(maps).pred_mask)
