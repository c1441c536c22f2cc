"""PyTorch, ONNX Runtime and ncnn behind one interface: `model.Model`."""
