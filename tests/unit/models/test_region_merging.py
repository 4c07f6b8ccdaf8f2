# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch

from anomalib_ncd.models.region_merging import merge_regions, novel_probabilities, relative_merging_temperature


def brute_force(probabilities, areas, image_index, temperature, num_images):
    merged = []
    for image in range(num_images):
        of_image = image_index == image
        weights = torch.softmax(areas[of_image].double().sqrt() / temperature, dim=0)
        merged.append(torch.einsum("r,r...->...", weights, probabilities[of_image].double()))
    return torch.stack(merged)


@pytest.fixture
def regions():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(12, 2, 5, generator=generator).softmax(dim=-1)
    areas = torch.randint(0, 20000, (12,), generator=generator)
    image_index = torch.tensor([2, 0, 1, 1, 2, 0, 3, 1, 1, 0, 2, 2])
    return probabilities, areas, image_index


@pytest.mark.parametrize("temperature", [50, 100])
def test_equals_golden(golden_dir, temperature):
    golden = np.load(golden_dir / "region_merging.npz")
    num_base = int(golden["num_base"])
    probabilities = novel_probabilities(torch.from_numpy(golden["logits"]), num_base)
    areas, image_index = torch.from_numpy(golden["areas"]), torch.from_numpy(golden["image_index"])
    merged = merge_regions(probabilities, areas, image_index, temperature).numpy()
    expected = golden[f"image_probabilities_T{temperature}"]
    assert not expected[..., :num_base].any()
    np.testing.assert_allclose(merged, expected[..., num_base:], atol=1e-5)
    np.testing.assert_array_equal(merged.argmax(-1) + num_base, golden[f"image_class_T{temperature}"])


def test_novel_probabilities_are_the_renormalised_softmax():
    logits = torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(0))
    full = (logits.double() / 0.1).softmax(dim=-1)[..., 3:]
    expected = full / full.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(novel_probabilities(logits, 3).double(), expected, atol=1e-5, rtol=1e-4)


def test_novel_probabilities_survive_certain_base_logits():
    probabilities = novel_probabilities(torch.tensor([1e4, 0.0, 0.0]), 1)
    torch.testing.assert_close(probabilities, torch.tensor([0.5, 0.5]))


def test_equals_brute_force(regions):
    merged = merge_regions(*regions, temperature=50)
    torch.testing.assert_close(merged.double(), brute_force(*regions, 50, 4), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(merged.sum(dim=-1), torch.ones(4, 2))


def test_one_temperature_an_image(regions):
    temperatures = torch.tensor([10.0, 50.0, 100.0, 7.0])
    merged = merge_regions(*regions, temperature=temperatures)
    for image, temperature in enumerate(temperatures.tolist()):
        torch.testing.assert_close(merged[image], merge_regions(*regions, temperature=temperature)[image])


def test_order_of_regions_does_not_matter(regions):
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    shuffled = merge_regions(*(part[order] for part in regions), temperature=50)
    torch.testing.assert_close(shuffled, merge_regions(*regions, temperature=50))


def test_other_images_do_not_matter(regions):
    probabilities, areas, image_index = regions
    of_image = image_index == 1
    alone = merge_regions(probabilities[of_image], areas[of_image], image_index[of_image] - 1, 50)
    torch.testing.assert_close(alone[0], merge_regions(*regions, temperature=50)[1])


def test_huge_areas_do_not_overflow():
    probabilities = torch.eye(2)
    merged = merge_regions(probabilities, torch.tensor([1e12, 1.0]), torch.tensor([0, 0]), temperature=0.5)
    torch.testing.assert_close(merged, torch.tensor([[1.0, 0.0]]))


def test_integer_types_and_no_regions():
    merged = merge_regions(torch.ones(1, 3), torch.tensor([0]), torch.tensor([0], dtype=torch.int32), 50, num_images=1)
    torch.testing.assert_close(merged, torch.ones(1, 3))
    empty = merge_regions(torch.ones(0, 3), torch.zeros(0), torch.zeros(0, dtype=torch.long), 50)
    assert empty.shape == (0, 3)


def test_gradients_flow(regions):
    probabilities, areas, image_index = regions
    probabilities.requires_grad_()
    merge_regions(probabilities, areas, image_index, 50).sum().backward()
    torch.testing.assert_close(probabilities.grad[6], torch.ones(2, 5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_images": 6}, r"got none for image \[4, 5\]"),
        ({"num_images": 3}, "`image_index` must be from 0 to 2, got 0 to 3"),
        ({"image_index": torch.arange(12) - 1}, "got -1 to 10"),
        ({"image_index": torch.zeros(12)}, "`image_index` must be int32 or int64"),
        ({"image_index": torch.zeros(11, dtype=torch.long)}, r"must have shapes \(R, ..., K\), \(R,\) and \(R,\)"),
        ({"areas": torch.zeros(12, 1)}, "must have shapes"),
        ({"areas": torch.full((12,), -4)}, "`areas` must be 0 or more, got -4"),
        ({"temperature": 0}, "`temperature` must be positive"),
        ({"temperature": torch.ones(3)}, r"`temperature` must be a number or have shape \(4,\)"),
    ],
)
def test_bad_regions_raise(regions, changes, message):
    arguments = dict(zip(("probabilities", "areas", "image_index"), regions, strict=True))
    with pytest.raises(ValueError, match=message):
        merge_regions(**{**arguments, "temperature": 50, **changes})


@pytest.mark.parametrize("num_base_classes", [-1, 5, 6])
def test_bad_number_of_base_classes_raises(num_base_classes):
    with pytest.raises(ValueError, match="`num_base_classes` must be from 0 to C - 1"):
        novel_probabilities(torch.zeros(2, 5), num_base_classes)


def test_bad_temperature_raises():
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        novel_probabilities(torch.zeros(2, 5), 1, temperature=0)


def test_the_relative_temperature_is_an_eighth_of_the_roots_of_the_areas():
    sizes = torch.tensor([[300, 300], [100, 400]])
    torch.testing.assert_close(relative_merging_temperature(sizes), torch.tensor([37.5, 25.0]))
