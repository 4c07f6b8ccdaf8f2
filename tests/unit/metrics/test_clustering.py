# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.metrics import Evaluator

from anomalib_ncd.metrics import ARI, NMI, ClusterAccuracy, ClusterMacroF1, clustering_report
from anomalib_ncd.metrics.clustering import build_evaluator

METRICS = {"nmi": NMI, "ari": ARI, "accuracy": ClusterAccuracy, "macro_f1": ClusterMacroF1}

NAMES = ["NMI", "ARI", "ClusterAccuracy", "ClusterMacroF1"]


def batch(preds, target):
    return SimpleNamespace(pred_class_id=torch.as_tensor(preds), class_id=torch.as_tensor(target))


@pytest.mark.parametrize(("key", "name"), [("nmi", "nmi"), ("ari", "ari"), ("accuracy", "f1")])
def test_equals_golden(golden_dir, key, name):
    golden = np.load(golden_dir / "metrics.npz")
    for index in range(4):
        metric = METRICS[key]()
        metric.update(batch(golden[f"pred{index}"], golden[f"true{index}"]))  # type: ignore[call-arg]
        assert metric.compute().item() == pytest.approx(golden[f"{name}{index}"].item(), abs=1e-6)


@pytest.mark.parametrize("key", METRICS)
def test_independent_of_batches_and_order(key):
    rng = np.random.default_rng(0)
    preds, target = rng.integers(0, 4, 60), rng.integers(-1, 3, 60)
    expected = clustering_report(preds, target)[key]
    order = rng.permutation(60)
    for batch_size in (1, 7, 60):
        metric = METRICS[key]()
        for start in range(0, 60, batch_size):
            chosen = order[start : start + batch_size]
            metric.update(batch(preds[chosen], target[chosen]))  # type: ignore[call-arg]
        assert metric.compute().item() == pytest.approx(expected, abs=1e-6)
        metric.reset()
        metric.update(batch([1, 1, 2], [0, 0, 1]))  # type: ignore[call-arg]
        assert metric.compute().item() == pytest.approx(1)


@pytest.mark.parametrize("metric_class", METRICS.values())
def test_nothing_labelled_is_nan(metric_class):
    metric = metric_class()
    metric.update(batch([1, 2], [-1, -1]))
    assert metric.compute().isnan()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("metric_class", METRICS.values())
def test_no_update_is_nan(metric_class):
    assert metric_class().compute().isnan()


def test_states_reduced_over_processes_are_scored():
    metric = NMI()
    metric.update(batch([3, 3, 5], [1, 1, 0]))
    metric.preds, metric.target = torch.cat(metric.preds), torch.cat(metric.target)
    assert metric.compute() == 1


def test_names_and_fields():
    assert NMI(prefix="image_").name == "image_NMI"
    metric = NMI(fields=["region_pred_class_id", "region_class_id"], prefix="region_")
    metric.update(SimpleNamespace(region_pred_class_id=torch.tensor([2, 4]), region_class_id=torch.tensor([0, 1])))
    assert (metric.name, metric.compute()) == ("region_NMI", 1)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_missing_fields():
    without_labels = SimpleNamespace(pred_class_id=torch.tensor([0]), class_id=None)
    with pytest.raises(ValueError, match="class_id"):
        NMI().update(without_labels)
    metric = NMI(strict=False)
    metric.update(without_labels)
    assert metric.compute() is None


def test_anomalib_evaluator_takes_them():
    evaluator = Evaluator(test_metrics=[metric(prefix="image_") for metric in METRICS.values()])
    evaluator.on_test_batch_end(None, None, None, batch([3, 3, 5], [1, 1, 0]), 0)
    assert [metric.compute().item() for metric in evaluator.test_metrics] == pytest.approx([1] * 4)


def test_bad_inputs_raise():
    with pytest.raises(ValueError, match=r"must both have shape \(N,\), got \(2, 3\) and \(2,\)"):
        NMI().update(batch(torch.zeros(2, 3), [0, 1]))
    with pytest.raises(ValueError, match=r"`preds` must hold integer class ids, got float32"):
        NMI().update(batch(torch.zeros(2, requires_grad=True), [0, 1]))
    with pytest.raises(ValueError, match="`target` must hold integer class ids"):
        NMI().update(batch([0, 1], torch.zeros(2)))


def test_images_and_regions_are_scored():
    evaluator = build_evaluator()
    assert [metric.name for metric in evaluator.test_metrics] == [
        f"{p}{n}" for p in ("image_", "region_") for n in NAMES
    ]
    assert len(evaluator.val_metrics) == 0
    batch = SimpleNamespace(
        pred_class_id=torch.tensor([2, 2, 0, 0]),
        class_id=torch.tensor([0, 0, 1, 1]),
        region_pred_class_id=torch.tensor([0, 0, 0, 1]),
        region_class_id=torch.tensor([0, 0, 1, 1]),
    )
    for metric in evaluator.test_metrics:
        metric.update(batch)
    scores = {metric.name: float(metric.compute()) for metric in evaluator.test_metrics}
    assert [scores[f"image_{name}"] for name in NAMES] == pytest.approx([1.0] * 4)
    assert scores["region_ClusterAccuracy"] == pytest.approx(0.75)
