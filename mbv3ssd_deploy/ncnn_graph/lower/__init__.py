"""ONNX operators as ncnn layers: one file a group of operators, one literal table in `body`."""
