"""Rewrites of an ncnn graph: one file a group, one visible order in `passes`."""
