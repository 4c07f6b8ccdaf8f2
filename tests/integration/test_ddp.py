# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Two processes train, test and predict as one does."""

import json
from functools import partial

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import json
import os
import sys
from pathlib import Path

import torch
from anomalib.engine import Engine
from lightning.pytorch import Callback, seed_everything

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.settings import TrainingSettings


def main(devices, folder, images, maps, base, checkpoint):
    local_rank = os.environ.get("LOCAL_RANK", "0")
    seed_everything(int(local_rank))  # networks start apart
    model = AnomalyNcd(backbone="test_vit", pretrained=False, training=TrainingSettings(mask_layers=3))
    started = {}

    class Start(Callback):
        def on_train_start(self, trainer, pl_module):
            started["weights"] = float(sum(p.double().abs().sum() for p in pl_module.parameters()))
            started["references"] = float(pl_module.model.rejection.references.double().sum())
            started["num_classes"] = pl_module.slots.num_classes

    def data():
        return NcdDataModule(
            images, maps, base=base, labels="folders", work_dir=folder / "work", train_batch_size=4, eval_batch_size=4
        )

    def engine(**more):
        strategy = "ddp" if devices > 1 else "auto"
        # Not one folder: two engines that number a new version in it at the same time both choose the same.
        return Engine(
            accelerator="cpu", devices=devices, strategy=strategy, logger=False, default_root_dir=folder / local_rank,
            enable_progress_bar=False, **more,
        )

    result = {"range": None}
    if devices > 1:
        trained = engine(max_epochs=1, callbacks=[Start()])
        trained.fit(model, datamodule=data())
        rank = trained.trainer.global_rank
        result["started"] = started
        result["steps"] = trained.trainer.global_step
        result["best_head"] = int(model.model.best_head)
        result["weights"] = float(sum(p.double().abs().sum() for p in model.parameters()))
        trained.trainer.save_checkpoint(checkpoint)
    else:
        rank = 0
    result["range"] = model.score_range.tolist()
    [result["scores"]] = engine().test(model, datamodule=data(), ckpt_path=checkpoint)
    batches = engine().predict(model, datamodule=data(), ckpt_path=checkpoint)
    result["predictions"] = [
        (path, probabilities)
        for batch in batches
        for path, probabilities in zip(batch.image_path, batch.class_probabilities.tolist(), strict=True)
    ]
    (folder / f"rank{rank}.json").write_text(json.dumps(result))


"""
# As `torchrun` starts them, but that what is imported is imported once.
TWO_PROCESSES = f"""
{SCRIPT}

import socket

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
second = os.fork()
os.environ |= {{"GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}}
os.environ |= {{"LOCAL_RANK": "0" if second else "1", "NODE_RANK": "0", "WORLD_SIZE": "2"}}
main(2, *map(Path, sys.argv[1:]))
assert not second or os.waitpid(second, 0)[1] == 0
"""


@pytest.fixture(scope="module")
def results(tiny_run, tmp_path_factory, run_fresh):
    """Results of each of two processes, and those of a process alone."""
    folder = tmp_path_factory.mktemp("ddp")
    found, here = [], {}
    exec(SCRIPT, here)  # noqa: S102 - the script above
    for name, start in (("two", partial(run_fresh, TWO_PROCESSES)), ("one", partial(here["main"], 1))):
        (folder / name).mkdir()
        start(folder / name, tiny_run.images, tiny_run.anomaly_maps, tiny_run.base, folder / "model.ckpt")
        found.append([json.loads(file.read_text()) for file in sorted((folder / name).glob("rank*.json"))])
    return found


def test_processes_train_one_model(results):
    (first, second), _ = results
    assert first["steps"] == second["steps"] > 1
    assert first["started"] == pytest.approx(second["started"])
    assert first["weights"] == pytest.approx(second["weights"])
    assert first["best_head"] == second["best_head"]
    assert first["range"] == second["range"]


def test_every_image_is_predicted_once_and_as_by_one_process(results):
    ranks, [alone] = results
    shared = [pair for rank in ranks for pair in rank["predictions"]]
    assert len(shared) == len(alone["predictions"]) == 18
    assert all(rank["predictions"] for rank in ranks)
    expected = dict(alone["predictions"])
    assert {path for path, _ in shared} == set(expected)
    for path, probabilities in shared:
        assert probabilities == pytest.approx(expected[path], abs=1e-5)


def test_scores_are_those_of_one_process(results):
    ranks, [alone] = results
    assert len(alone["scores"]) == 8
    for rank in ranks:
        assert rank["scores"] == pytest.approx(alone["scores"], abs=1e-6)
