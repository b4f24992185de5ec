"""Engines that run the network: PyTorch, OpenVINO and ONNX Runtime."""
