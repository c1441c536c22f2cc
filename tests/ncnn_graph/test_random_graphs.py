"""Random graphs: unfused, fused, and fused by some of the passes, all as ONNX Runtime has them.

FUZZ_EXAMPLES=2000 looks longer.
"""

import os

import numpy as np
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from onnx_text import input_of, lowered, onnx_outputs, run_ncnn
from random_onnx import onnx_models

from mbv3ssd_deploy.ncnn_graph.fuse.passes import PASSES, fuse_graph

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
# making a failure small takes minutes: FUZZ_SHRINK=1 does it
PHASES = (Phase.generate, Phase.shrink) if "FUZZ_SHRINK" in os.environ else (Phase.generate,)


def fused_by(graph, outputs, passes):
    for rewrite in passes:
        graph = rewrite(graph, outputs)
    return graph


def listing(graph):
    return "\n".join(
        f"{layer.type} {layer.inputs} -> {layer.outputs} {dict(layer.params)}"
        for layer in graph.layers
    )


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    phases=PHASES,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(model=onnx_models(), some=st.sets(st.sampled_from(PASSES)))
def test_fused_or_not_it_is_what_onnx_runtime_computes(model, some):
    outputs = frozenset(output.name for output in model.graph.output)
    x = input_of(model, scale=1.5)
    expected = onnx_outputs(model, x)
    bare = lowered(model)
    graphs = {
        "unfused": bare,
        "by some passes": fused_by(bare, outputs, [p for p in PASSES if p in some]),
        "fused": fuse_graph(bare, outputs),
    }
    for how, graph in graphs.items():
        note(f"{how}:\n{listing(graph)}")
        found = run_ncnn(graph, x, sorted(outputs))
        for name, value in expected.items():
            assert found[name].shape == value.shape[1:], f"{how}: {name}"
            scale = max(1.0, float(np.abs(value).max()))
            np.testing.assert_allclose(
                found[name],
                value[0],
                rtol=1e-4,
                atol=2e-5 * scale,
                err_msg=f"{how}: {name}",
            )
