"""Rewrites of an ncnn graph: one a file, in one visible order."""
