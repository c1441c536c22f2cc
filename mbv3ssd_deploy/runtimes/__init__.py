"""One small class a runtime: PyTorch, ONNX Runtime, ncnn."""
