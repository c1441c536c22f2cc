"""An ONNX body becomes an ncnn graph, and a graph becomes .param and .bin bytes, both ways."""
