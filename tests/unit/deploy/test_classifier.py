# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import tracemalloc
from dataclasses import replace

import cv2
import numpy as np
import pytest

from anomalib_ncd.deploy import AnomalyClassifier, Artefact, ImageLimits, Rejection
from anomalib_ncd.deploy.classifier import classify_image
from anomalib_ncd.deploy.packing.build import classifier_of_run
from anomalib_ncd.deploy.runtimes import load_encoder
from anomalib_ncd.regions.crops import Region
from anomalib_ncd.regions.cutting import cut_regions
from anomalib_ncd.regions.reading.listing import IMAGE_SUFFIXES, find_files
from anomalib_ncd.regions.views import eval_views, whole_view


def assert_equal_to_engine(results, batches):
    """Compare images and regions with what ``Engine.predict`` returned."""
    found = {result.image: result for result in results}
    for batch in batches:
        for index, path in enumerate(batch.image_path):
            result = found.pop(path)
            rows = (batch.region_image_index == index).nonzero().flatten().tolist()
            assert result.class_id == int(batch.pred_class_id[index])
            np.testing.assert_allclose(result.probabilities, batch.class_probabilities[index].numpy(), atol=1e-4)
            assert result.confidence == pytest.approx(float(batch.pred_class_score[index]), abs=1e-4)
            assert [region.class_id for region in result.regions] == batch.region_pred_class_id[rows].tolist()
            assert [region.is_unknown for region in result.regions] == batch.region_unknown[rows].tolist()
            assert result.is_unknown == bool(batch.unknown[index])
            boxes = [region.box_xyxy for region in result.regions]
            np.testing.assert_allclose(boxes, batch.region_box_xyxy[rows].numpy(), atol=1e-4)
            assert [region.area for region in result.regions] == batch.region_area[rows].tolist()
            scores = [region.score for region in result.regions]
            np.testing.assert_allclose(scores, batch.region_score[rows].numpy(), atol=1e-5)
            features = np.stack([region.feature for region in result.regions])
            np.testing.assert_allclose(features, batch.region_feature[rows].numpy(), atol=1e-3)
    assert not found


@pytest.mark.parametrize("fixture", ["onnx_artefact", "openvino_artefact", "torch_artefact"])
def test_an_artefact_gives_what_the_engine_gives(fixture, request, tiny_run, predicted, saved_maps):
    classifier = AnomalyClassifier.load(request.getfixturevalue(fixture), saved_maps, batch_size=5)
    assert_equal_to_engine(classifier.predict(tiny_run.images), predicted)
    assert saved_maps.batch_sizes == [5, 5, 5, 3]


def test_a_run_gives_what_the_engine_gives_one_by_one(run_folder, tiny_run, predicted, saved_maps):
    classifier = classifier_of_run(run_folder, saved_maps)
    results = [classifier.predict(path) for path in find_files(tiny_run.images, IMAGE_SUFFIXES)]
    assert_equal_to_engine(results, predicted)
    # The run of the fixture never saw a line.
    assert [result.is_unknown for result in results] == [False] * 6 + [True] * 6 + [False] * 6


@pytest.fixture
def classifier(onnx_artefact, saved_maps):
    return AnomalyClassifier.load(onnx_artefact, saved_maps)


def without_image(result):
    return replace(result, image=None)


def test_images_come_as_file_folder_array_or_batch(onnx_artefact, tiny_run, function_detector):
    classifier = AnomalyClassifier.load(onnx_artefact, function_detector)
    folder = tiny_run.images / "line"
    results = classifier.predict(folder)
    files = sorted(folder.iterdir())
    assert [result.image for result in results] == [str(file) for file in files]
    pixels = [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files]
    for of_several in (classifier.predict(np.stack(pixels)), classifier.predict([*pixels[:3], *files[3:]])):
        for found, wanted in zip(of_several, results, strict=True):
            assert found.class_id == wanted.class_id
            assert found.probabilities == pytest.approx(wanted.probabilities, abs=1e-5)
    one, other = classifier.predict(files[0]), classifier.predict(pixels[0])
    assert one.image == str(files[0])
    assert other.image is None
    assert without_image(one) == other
    assert classifier.predict([]) == []


def test_masks_are_those_of_the_regions(classifier, tiny_run):
    [region] = classifier.predict(tiny_run.images / "square" / "000.png").regions
    assert region.mask.dtype == bool
    assert region.mask.sum() == region.area > 0
    left, top, right, bottom = (round(edge) for edge in region.box_xyxy)
    assert region.mask.shape == (bottom - top, right - left)


def test_a_stream_holds_one_batch_at_a_time(onnx_artefact, function_detector):
    classifier = AnomalyClassifier.load(onnx_artefact, function_detector, batch_size=2)
    drawn = []

    def source():
        for number in range(6):
            drawn.append(number)
            yield np.full((32, 32, 3), 100, np.uint8)

    stream = classifier.stream(source())
    assert drawn == []
    next(stream)
    assert drawn == [0, 1]


def test_memory_stays_flat_over_many_images(onnx_artefact):
    """With an encoder that costs nothing, so that many images are few seconds."""
    artefact = Artefact.load(onnx_artefact)
    constant = load_encoder(artefact)(
        {"image": np.zeros((1, 3, 224, 224), np.uint8), "mask": np.ones((1, 1, 224, 224), np.float32)}
    )

    def encoder(inputs):
        return {name: np.repeat(part, len(inputs["image"]), axis=0) for name, part in constant.items()}

    encoder.input_shapes = {"image": (), "mask": ()}

    classifier = AnomalyClassifier(artefact.manifest, encoder, lambda image: image[..., 0] / 255)
    image = np.zeros((48, 48, 3), np.uint8)
    image[10:30, 10:30] = 255

    def peak_over(count):
        tracemalloc.start()
        assert sum(len(result.regions) for result in classifier.stream(image for _ in range(count))) == count
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_over(16)
    few = peak_over(16)
    assert peak_over(400) < few + 500_000


def test_the_order_and_company_of_images_changes_nothing(classifier, tiny_run):
    paths = list(find_files(tiny_run.images, IMAGE_SUFFIXES))
    forwards = {result.image: result for result in classifier.stream(paths)}
    for result in classifier.stream(paths[::-1]):
        assert result.class_id == forwards[result.image].class_id
        assert result.probabilities == pytest.approx(forwards[result.image].probabilities, abs=1e-5)


def test_regions_go_through_the_encoder_in_limited_batches(onnx_artefact, tiny_run, saved_maps):
    artefact = Artefact.load(onnx_artefact)
    encoder, sizes = load_encoder(artefact), []

    def counting(inputs):
        sizes.append(len(inputs["image"]))
        return encoder(inputs)

    counting.input_shapes = encoder.input_shapes
    few = AnomalyClassifier(artefact.manifest, counting, saved_maps, batch_size=18, region_batch_size=4)
    many = AnomalyClassifier(artefact.manifest, encoder, saved_maps)
    for found, wanted in zip(few.predict(tiny_run.images), many.predict(tiny_run.images), strict=True):
        assert found.probabilities == pytest.approx(wanted.probabilities, abs=1e-5)
    assert max(sizes) == 4


def test_one_bad_image_does_not_stop_the_others(classifier, tiny_run, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    good = sorted((tiny_run.images / "line").iterdir())
    paths = [good[0], tmp_path / "broken.png", tmp_path / "gone.png", np.zeros((4, 4)), good[1]]
    results = list(classifier.stream(paths, on_error="report"))
    assert [result.error is None for result in results] == [True, False, False, False, True]
    assert "no image file" in results[1].error
    assert "gone.png" in results[2].error
    assert "`image` must have shape (H, W, 3)" in results[3].error
    assert [result.image for result in results[:3]] == [str(path) for path in paths[:3]]
    for path, message in zip(paths[1:4], ("no image file", "gone.png", r"shape \(H, W, 3\)"), strict=True):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            list(classifier.stream([path]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_detector_that_returns_nan_is_reported_by_image(onnx_artefact, value):
    def detector(image):
        scores = image[..., 0].astype(np.float32)
        scores[0, 0] = value if image[0, 0, 0] == 7 else scores[0, 0]
        return scores

    classifier = AnomalyClassifier.load(onnx_artefact, detector)
    images = [np.full((32, 32, 3), grey, np.uint8) for grey in (1, 7, 2)]
    results = list(classifier.stream(images, on_error="report"))
    assert [result.error is None for result in results] == [True, False, True]
    assert "The detector's map of the image can't be used" in results[1].error
    with pytest.raises(ValueError, match="must be finite, got NaN or infinity; check the detector"):
        classifier.predict(images[1])


def test_a_detector_that_fails_on_one_image_is_asked_for_each(onnx_artefact):
    class Picky:
        def detect(self, images, paths):
            if any(image[0, 0, 0] == 7 for image in images):
                msg = "I can't look at this."
                raise ValueError(msg)
            return [image[..., 0] for image in images]

    classifier = AnomalyClassifier.load(onnx_artefact, Picky())
    images = [np.full((32, 32, 3), grey, np.uint8) for grey in (1, 7, 2)]
    results = list(classifier.stream(images, on_error="report"))
    assert [result.error for result in results] == [None, "I can't look at this.", None]
    with pytest.raises(ValueError, match="I can't look at this"):
        list(classifier.stream(images))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "MemoryError: no further reason is given"),
        (RuntimeError("CUDA out of\n  memory"), "RuntimeError: CUDA out of memory"),
        (KeyError("x"), "KeyError: 'x'"),
        (ConnectionError("no answer"), "no answer"),
        (UnicodeDecodeError("utf-8", b"a", 0, 1, "why"), "'utf-8' codec can't decode byte 0x61 in position 0: why"),
    ],
)
def test_whatever_a_detector_or_an_encoder_raises_is_reported_by_image(onnx_artefact, error, text):
    artefact = Artefact.load(onnx_artefact)
    encoder = load_encoder(artefact)

    def detector(pixels):
        if pixels[0, 0, 0] == 7:
            raise error
        return pixels[..., 0] / 255

    def failing(inputs):
        if (inputs["image"][:, 0, 0, 0] == 8).any():
            raise error
        return encoder(inputs)

    failing.input_shapes = encoder.input_shapes
    classifier = AnomalyClassifier(artefact.manifest, failing, detector)
    images = [np.full((32, 32, 3), grey, np.uint8) for grey in (1, 7, 8, 2)]
    results = list(classifier.stream(images, on_error="report"))
    assert [result.error for result in results] == [None, text, text, None]
    for image in images[1:3]:
        with pytest.raises(type(error)):
            classifier.predict(image)


def test_the_digest_is_that_of_all_that_decides(onnx_artefact, function_detector):
    def digest(detector, **values):
        manifest = replace(Artefact.load(onnx_artefact).manifest, **values)
        return AnomalyClassifier(manifest, None, detector).sha256

    class Digested:
        sha256 = "a"

        def detect(self, images, paths):
            return []

    digests = {digest(function_detector), digest(Digested()), digest(Digested(), score_range=(0, 2))}
    assert len(digests) == 3
    assert digest(Digested()) in digests


def test_limits_hold(onnx_artefact, function_detector, tiny_run):
    classifier = AnomalyClassifier.load(onnx_artefact, function_detector, limits=ImageLimits(max_pixels=64 * 63))
    with pytest.raises(ValueError, match="has 64 x 64 pixels, more than the limit of 4,032"):
        classifier.predict(tiny_run.images / "line" / "000.png")


def test_an_image_without_anomaly_is_one_region_and_normal(onnx_artefact):
    classifier = AnomalyClassifier.load(onnx_artefact, lambda image: np.zeros(image.shape[:2]))
    result = classifier.predict(np.full((40, 60, 3), 120, np.uint8))
    assert result.is_normal
    [region] = result.regions
    assert region.box_xyxy == (0, 0, 60, 40)
    assert region.area == 0


def test_masks_and_features_can_be_left_out(onnx_artefact, function_detector, tiny_run):
    classifier = AnomalyClassifier.load(onnx_artefact, function_detector, keep_masks=False)
    [region] = classifier.predict(tiny_run.images / "line" / "000.png").regions
    assert region.mask is None
    assert region.feature is None


def test_bad_arguments(onnx_artefact, function_detector, tmp_path):
    with pytest.raises(ValueError, match="The artefact has no detector; give one as `detector`"):
        AnomalyClassifier.load(onnx_artefact)
    with pytest.raises(ValueError, match="`batch_size` must be 1 or more, got 0"):
        AnomalyClassifier.load(onnx_artefact, function_detector, batch_size=0)
    with pytest.raises(FileNotFoundError, match="holds no images"):
        AnomalyClassifier.load(onnx_artefact, function_detector).predict(tmp_path)
    assert AnomalyClassifier.load(onnx_artefact, function_detector).class_names == ("normal", "dark", "bright", "dark")


def test_maps_in_other_units_are_warned_of_once(onnx_artefact, caplog):
    classifier = AnomalyClassifier.load(onnx_artefact, lambda image: image[..., 0].astype(np.float32))
    black, white = np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)
    classifier.predict(black)
    assert "in other units" not in caplog.text
    classifier.predict([white, white])
    classifier.predict(white)
    assert caplog.text.count("they are in other units than those of the run") == 1


MAP = np.zeros((32, 32), np.float32)
IMAGE = np.zeros((32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def manifest(torch_artefact):
    loaded = Artefact.load(torch_artefact).manifest
    return replace(loaded, score_range=(0.0, 1.0), merging_temperature=10.0)


def build_regions(*areas):
    mask = np.ones((4, 4), bool)
    return [Region((0, 0, 4, 4), 0.5, area, np.zeros((4, 4, 3), np.uint8), mask) for area in areas]


def outputs_of(*probabilities, nearest=0.9):
    rows = np.array(probabilities, dtype=np.float32)
    nearest = np.broadcast_to(np.asarray(nearest, np.float32), len(rows))
    features = np.zeros((len(rows), 5), np.float32)
    return {"class_probabilities": rows, "region_feature": features, "neighbour_similarity": nearest}


def test_a_map_becomes_regions_with_views(manifest):
    image = np.full((64, 64, 3), 100, np.uint8)
    anomaly_map = MAP.copy()
    anomaly_map[8:20, 8:20] = 1
    regions = cut_regions(image, anomaly_map, manifest.score_range, manifest.regions)[1]
    [region] = regions
    # 12 px eroded by 3 leave 10, doubled 20, widened by the padding of 0.2 to 24
    assert region.box_xyxy[2] - region.box_xyxy[0] == 24
    assert region.area == 20**2
    views, masks = eval_views([(region.image, region.mask) for region in regions])
    assert (views.shape, masks.shape) == ((1, 3, 224, 224), (1, 1, 224, 224))


def test_whole_images_of_any_size_are_viewed():
    views = [whole_view(image, 32) for image in (IMAGE, np.full((20, 30, 3), 7, np.uint8))]
    assert [view.shape for view in views] == [(3, 32, 32)] * 2
    assert (views[1] == 7).all()


def test_regions_are_merged_as_the_manifest_says(manifest):
    # roots 10 and 20 over 10: weights 1 : e
    result = classify_image(IMAGE.shape[:2], build_regions(100, 400), outputs_of([0, 1, 0, 0], [0, 0, 1, 0]), manifest)
    assert result.probabilities == pytest.approx([0, 1 / (1 + np.e), np.e / (1 + np.e), 0])
    assert (result.class_id, result.class_name, result.classes) == (2, "bright", ("bright", "dark"))
    assert [region.class_name for region in result.regions] == ["dark", "bright"]
    assert [region.mask.shape for region in result.regions] == [(4, 4)] * 2
    assert [region.feature.shape for region in result.regions] == [(5,)] * 2
    slim = classify_image(IMAGE.shape[:2], build_regions(9), outputs_of([0, 1, 0, 0]), manifest, keep_masks=False)
    assert slim.regions[0].mask is slim.regions[0].feature is None


def test_normal_is_the_slot_of_the_manifest_whatever_its_name(manifest):
    renamed = replace(manifest, class_names=("good part", "dark", "normal", "dark"), rejection=None)
    assert classify_image(IMAGE.shape[:2], build_regions(9), outputs_of([1, 0, 0, 0]), renamed).is_normal
    assert not classify_image(IMAGE.shape[:2], build_regions(9), outputs_of([0, 0, 1, 0]), renamed).is_normal


def test_an_image_without_region_has_a_result(manifest):
    nothing = {name: array[:0] for name, array in outputs_of([1, 0, 0, 0]).items()}
    result = classify_image(IMAGE.shape[:2], [], nothing, manifest)
    assert (result.class_name, result.is_normal, result.regions) == ("normal", True, ())


def test_a_region_is_unknown_below_the_threshold(manifest):
    for rejection, nearest, is_unknown in (
        (None, -1, False),
        (Rejection(0.5, 0.02, (0.5,)), 0.49, True),
        (Rejection(0.5, 0.02, (0.5,)), 0.51, False),
    ):
        found = outputs_of([0.3, 0.3, 0.4, 0], nearest=nearest)
        result = classify_image(IMAGE.shape[:2], build_regions(9), found, replace(manifest, rejection=rejection))
        assert result.regions[0].to_dict()["neighbour_similarity"] == pytest.approx(nearest)
        assert result.is_unknown == result.regions[0].is_unknown == is_unknown
