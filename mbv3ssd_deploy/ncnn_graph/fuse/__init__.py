"""Rewrites of an ncnn graph: one a file, in one visible order."""

from mbv3ssd_deploy.ncnn_graph.fuse.passes import PASSES, Pass, fuse_graph

__all__ = ["PASSES", "Pass", "fuse_graph"]
