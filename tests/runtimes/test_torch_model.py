"""PyTorch as a runtime: eval mode, the caller's net untouched, a missing GPU told."""

import numpy as np
import pytest
import torch
from torch import nn

from mbv3ssd_deploy.errors import RuntimeFailedError, RuntimeUnavailableError
from mbv3ssd_deploy.runtimes.torch_model import TorchModel

IMAGE = np.ones((1, 3, 4, 4), np.float32)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        x = self.norm(x).flatten(1)
        return x.reshape(-1, 12, 4), x.reshape(-1, 24, 2)


def test_it_runs_in_eval_mode_on_a_copy():
    net = Net().train()
    runtime = TorchModel(net)
    with torch.no_grad():
        net.norm.weight.fill_(100.0)

    loc = runtime.run(IMAGE).tensors["loc"]

    np.testing.assert_allclose(loc, 1.0, atol=1e-4)  # batch statistics would give 0
    assert net.training
    assert int(net.norm.num_batches_tracked) == 0


def test_global_switches_are_put_back():
    before = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)

    TorchModel(Net()).run(IMAGE)

    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before
    assert torch.is_grad_enabled()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_told():
    with pytest.raises(RuntimeUnavailableError, match="finds no cuda") as caught:
        TorchModel(Net(), "cuda")

    assert "--device cpu" in caught.value.hint
    assert caught.value.exit_code == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_gpu_gives_what_the_cpu_gives():
    cpu, gpu = TorchModel(Net()).run(IMAGE), TorchModel(Net(), "cuda").run(IMAGE)

    assert gpu.provider == "cuda"
    np.testing.assert_allclose(gpu.tensors["loc"], cpu.tensors["loc"], rtol=1e-5)


def test_a_net_that_cannot_run_is_told():
    with pytest.raises(RuntimeFailedError, match="PyTorch could not run the net"):
        TorchModel(Net()).run(np.ones((1, 3, 3, 3), np.float32))
