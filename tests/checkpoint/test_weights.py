import pytest
import torch
from checkpoint_files import saved, state_dict

from mbv3ssd_deploy.checkpoint.load import load_detector
from mbv3ssd_deploy.checkpoint.reader import read_checkpoint
from mbv3ssd_deploy.checkpoint.state_dict import checked_weights
from mbv3ssd_deploy.errors import CheckpointError


def test_halves_and_doubles_become_float32_with_a_notice():
    weights, notices = checked_weights(
        {
            "a": torch.ones(2, dtype=torch.float16),
            "b": torch.ones(2, dtype=torch.bfloat16),
            "c": torch.ones(2, dtype=torch.float64),
            "d": torch.ones(2),
            "e.num_batches_tracked": torch.tensor(3, dtype=torch.int32),
        }
    )

    assert [weights[key].dtype for key in "abcd"] == [torch.float32] * 4
    assert weights["e.num_batches_tracked"].dtype == torch.int64
    assert notices == (
        "1 tensors of float64 became float32",
        "1 tensors of float16 became float32",
        "1 tensors of bfloat16 became float32",
    )


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(2, dtype=torch.int64), "w is int64, not a float"),
        (torch.ones(2, dtype=torch.bool), "w is bool, not a float"),
        (torch.ones(2, dtype=torch.complex64), "w is complex64, not a float"),
    ],
)
def test_what_is_no_dense_float_is_refused_by_name(tensor, message):
    with pytest.raises(CheckpointError, match=message):
        checked_weights({"fine": torch.ones(1), "w": tensor})


UNUSABLE = {
    "w is sparse": lambda: torch.ones(2, 2).to_sparse(),
    "w has a shape but no values": lambda: torch.empty(2, 2, device="meta"),
    "w has more elements than the file holds": lambda: torch.ones(1, 2).expand(2, 2),
    "w is quantised": lambda: torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8),
    "w is uint16, not a float": lambda: torch.ones(2, 2).to(torch.uint16),
}


@pytest.mark.filterwarnings("ignore:.*quantiz.*")  # torch announces the end of quantised tensors
@pytest.mark.parametrize("message", UNUSABLE)
def test_a_tensor_of_another_kind_is_refused_by_name(tmp_path, message):
    raw = read_checkpoint(
        saved(tmp_path / "w.pth", {"fine": torch.ones(1), "w": UNUSABLE[message]()})
    )

    assert raw.shapes["w"] == (2, 2)
    with pytest.raises(CheckpointError, match=message):
        checked_weights(raw.tensors, raw.unusable)


def test_a_counter_must_be_a_whole_number():
    with pytest.raises(CheckpointError, match=r"bn\.num_batches_tracked is not a counter"):
        checked_weights({"bn.num_batches_tracked": torch.tensor(1.5)})


def test_values_beyond_float32_are_refused():
    with pytest.raises(CheckpointError, match=r"beyond float32's range in w"):
        checked_weights({"w": torch.tensor([1e300], dtype=torch.float64)})


def test_large_finite_values_pass():
    weights, _ = checked_weights({"w": torch.full((1000,), 3e38)})

    assert weights["w"].max() == pytest.approx(3e38)


def test_nan_and_inf_are_named_with_their_counts_all_at_once(tmp_path):
    weights = state_dict("qfgaohao_small")
    weights["base_net.0.weight"][3, 1, 2, 0] = torch.nan
    weights["extras.2.bn1.running_var"][:5] = torch.inf
    weights["regression_headers.5.bias"][0] = -torch.inf
    path = saved(tmp_path / "w.pth", weights)

    with pytest.raises(CheckpointError) as info:
        load_detector(path)

    message = info.value.message
    assert message.startswith("3 tensors are not finite: ")
    assert "base_net.0.weight (1 NaN or Inf)" in message
    assert "extras.2.bn1.running_var (5 NaN or Inf)" in message
    assert "regression_headers.5.bias (1 NaN or Inf)" in message


def test_a_half_precision_checkpoint_loads(tmp_path):
    weights = {
        k: t.half() if t.is_floating_point() else t for k, t in state_dict("qfgaohao_small").items()
    }

    loaded = load_detector(saved(tmp_path / "w.pth", weights))

    assert {p.dtype for p in loaded.net.parameters()} == {torch.float32}
    assert any("float16 became float32" in notice for notice in loaded.notices)


def test_integer_weights_are_refused(tmp_path):
    weights = state_dict("qfgaohao_small")
    weights["base_net.0.weight"] = weights["base_net.0.weight"].to(torch.int8)

    with pytest.raises(CheckpointError, match=r"base_net\.0\.weight is int8, not a float"):
        load_detector(saved(tmp_path / "w.pth", weights))
