import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mbv3ssd_deploy.checkpoint.load import load_detector
from mbv3ssd_deploy.cli.main import cli
from mbv3ssd_deploy.train.process import World, world_from_environment

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def words(voc, folder):
    flags = "--epochs 2 --batch 4 --arch small --width 0.25 --imgsz 96 --seed 3 --workers 0"
    more = "--device cpu --freeze-norms --lr 0.001 --val-every 2 --json -q"
    return ["train", "--data", f"voc:{voc}", *flags.split(), *more.split(), "-o", str(folder)]


def run_alone(voc, folder):
    done = CliRunner().invoke(cli, words(voc, folder))
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def run_together(voc, folder):
    return json.loads(run_torchrun(words(voc, folder)).stdout)


def run_torchrun(words):
    command = [*TORCHRUN, "-m", "mbv3ssd_deploy", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=500
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def losses(folder):
    rows = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    return np.array([[float(row["localisation"]), float(row["classification"])] for row in rows])


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no distributed")
@pytest.mark.slow
def test_two_processes_train_as_one_does_with_the_same_batches(voc, tmp_path):
    alone = run_alone(voc, tmp_path / "one")
    together = run_together(voc, tmp_path / "two")

    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5)
    assert together["steps"] == alone["steps"] == 4
    assert together["best"]["mAP50"] == pytest.approx(alone["best"]["mAP50"], abs=1e-6)
    one, two = (
        load_detector(tmp_path / name / "last.pth").net.state_dict() for name in ("one", "two")
    )
    assert all(torch.allclose(one[key], two[key], atol=1e-4) for key in one)


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no distributed")
def test_two_processes_train_a_backbone_and_one_prints(voc, tmp_path):
    flags = "--epochs 2 --batch 4 --width 0.25 --imgsz 48 --workers 0 --device cpu --json -q"
    words = ["train-backbone", "--data", f"voc:{voc}", *flags.split(), "-o", str(tmp_path / "two")]

    done = run_torchrun(words)

    report = json.loads(done.stdout)
    assert report["epochs"] == 2
    assert report["best"]["top1"] >= 0
    names = ["backbone.pth", "last.pth", "history.csv", "history.png", "run.json"]
    assert report["files"] == [str(tmp_path / "two" / name) for name in names]


def test_the_environment_decides_rank_and_world_size(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    alone = world_from_environment()
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")

    assert alone == World(0, 1, 0)
    assert alone.is_main
    assert world_from_environment() == World(3, 4, 1)
    assert not world_from_environment().is_main
    assert alone.gathered([1, 2]) == [[1, 2]]
