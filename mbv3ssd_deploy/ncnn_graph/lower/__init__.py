"""ONNX ops in ncnn words: one file a group of ops, one literal table of lowerings."""

from mbv3ssd_deploy.ncnn_graph.lower.body import (
    LoweredBody,
    lower_body,
    lower_model,
    lower_with_names,
)

__all__ = ["LoweredBody", "lower_body", "lower_model", "lower_with_names"]
