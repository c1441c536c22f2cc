"""A net becomes an ONNX body: raw heads only, no priors, no softmax, no NMS; then simplified."""
