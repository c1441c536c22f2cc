"""One small class a runtime: PyTorch, ONNX Runtime, ncnn.

All keep the contract of `types.Runtime`: `run(batch (N,3,H,W) float32)` takes any N and gives a
`RunResult` with `loc` (N,P,4) and `conf` (N,P,C), and which provider really ran. `NcnnRuntime` also
gives any blob by name, image by image (`run_blobs`).
"""
