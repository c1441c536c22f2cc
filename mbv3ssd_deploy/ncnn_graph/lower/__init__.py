"""ONNX ops in ncnn words: one file a group of ops, one literal table of lowerings."""
