# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The plug-in in anomalib's own command line, with nothing but a YAML file."""

import pytest
import torch
import yaml
from anomalib.cli.cli import AnomalibCLI

from anomalib_ncd import AnomalyNcd


@pytest.fixture(scope="module")
def config(tiny_run, tmp_path_factory):
    """A configuration of model, data and trainer in tiny."""
    folder = tmp_path_factory.mktemp("anomalib_cli")
    settings = {
        "model": {
            "class_path": "anomalib_ncd.AnomalyNcd",
            "init_args": {
                "backbone": "test_vit",
                "pretrained": False,
                "training": {"mask_layers": 3},
                "num_novel_classes": 3,
            },
        },
        "data": {
            "class_path": "anomalib_ncd.NcdDataModule",
            "init_args": {
                "images": str(tiny_run.images),
                "anomaly_maps": str(tiny_run.anomaly_maps),
                "base": str(tiny_run.base),
                "labels": "folders",
                "regions": {"padding_ratio": 0.2},
                "work_dir": str(folder / "work"),
            },
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False},
        "default_root_dir": str(folder / "results"),
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def run(*args):
    """Run anomalib's command in this process."""
    return AnomalibCLI(args=[str(arg) for arg in args])


@pytest.fixture(scope="module")
def checkpoint(config):
    command = run("train", "--config", config)
    assert isinstance(command.model, AnomalyNcd)
    [file] = (config.parent / "results").rglob("v0/**/*.ckpt")
    return file


def test_train(config, checkpoint):
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["anomalib_ncd"]["slots"]["base_names"] == ["base_line", "base_square"]
    assert list((config.parent / "work" / "regions").rglob("*.png"))
    assert '"padding_ratio": 0.2' in (config.parent / "work" / "regions" / "settings.json").read_text()


def test_test(config, checkpoint, capsys):
    run("test", "--config", config, "--ckpt_path", checkpoint)
    assert "image_NMI" in capsys.readouterr().out


def test_predict(config, checkpoint):
    command = run("predict", "--config", config, "--ckpt_path", checkpoint)
    assert command.model.model.best_head >= 0
    assert command.model.score_range.isfinite().all()


def test_fit_by_flags(config, tiny_run, tmp_path):
    command = run(
        "fit",
        "--model=anomalib_ncd.AnomalyNcd",
        "--model.backbone=test_vit",
        "--model.pretrained=false",
        "--model.training.mask_layers=2",
        "--data=anomalib_ncd.NcdDataModule",
        f"--data.images={tiny_run.images}",
        f"--data.anomaly_maps={tiny_run.anomaly_maps}",
        "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu",
        "--trainer.devices=1",
        f"--default_root_dir={tmp_path}",
    )
    assert command.model.slots.num_base == 0
    assert command.model.score_range.isfinite().all()


def test_pictures_and_figures_by_flags(config, checkpoint, tmp_path):
    run(
        "test",
        "--config",
        config,
        "--ckpt_path",
        checkpoint,
        "--model.visualizer=anomalib_ncd.visualization.NcdVisualizer",
        f"--model.visualizer.init_args.output_dir={tmp_path}",
        "--model.visualizer.init_args.draw_normal=false",
        "--trainer.callbacks=anomalib_ncd.visualization.FigureLogger",
        "--trainer.callbacks.draw_map=false",
    )
    assert len(list(tmp_path.rglob("*.png"))) == 18
    assert (tmp_path / "line" / "000.png").is_file()
