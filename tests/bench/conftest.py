"""A finished tiny bundle, and rows as a measurement reports them."""

import pytest
from bundle_folder import build_bundle_folder

from mbv3ssd_deploy.bench.report import Ratio, RowReport


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    return build_bundle_folder(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def a_row():
    def make(**changes):
        facts = {
            "target": "deploy",
            "title": "ncnn fp32, 1 thread",
            "runtime": "ncnn",
            "precision": "fp32",
            "threads": 1,
            "device": "cpu",
            "engine": "ncnn 1.0",
            "clock": "thread",
            "prepare_ms": 1.0,
            "network_ms": 9.5,
            "finish_ms": 0.5,
            "both_ms": 10.0,
            "p90_ms": 11.0,
            "ratio": Ratio(1.0, 1.0, 1.0),
            "load_ms": 5.0,
            "file_bytes": 1000,
            "peak_mb": 50.0,
            "network_mb": 5.0,
            "candidates": 300.0,
            "score_threshold": 0.01,
            "detections": 10.0,
            "rounds": 30,
        }
        return RowReport(**facts | changes)

    return make
