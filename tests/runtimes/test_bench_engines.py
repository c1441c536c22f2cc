"""The times of the nodes that ONNX Runtime really runs."""

import pytest
from builders import tiny_input, tiny_net, tiny_spec

from mbv3ssd_deploy.errors import RuntimeFailedError
from mbv3ssd_deploy.onnx_body.body import bytes_from_body
from mbv3ssd_deploy.onnx_body.export import export_body
from mbv3ssd_deploy.runtimes.bench_engines import profile_nodes


def test_every_node_has_a_time_for_every_round(tmp_path):
    spec = tiny_spec()
    path = tmp_path / "body.onnx"
    path.write_bytes(bytes_from_body(export_body(tiny_net(spec=spec), spec)))

    times = profile_nodes(path, tiny_input(spec)[0], rounds=3)

    assert "Conv" in {kind for _, kind in times}
    assert {len(seconds) for seconds in times.values()} == {3}
    assert min(min(seconds) for seconds in times.values()) >= 0


def test_a_broken_model_is_refused(tmp_path):
    path = tmp_path / "body.onnx"
    path.write_bytes(b"not a model")

    with pytest.raises(RuntimeFailedError, match="refuses the model"):
        profile_nodes(path, tiny_input()[0], rounds=1)
