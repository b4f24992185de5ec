"""What runs the network: PyTorch, OpenVINO, ONNX Runtime."""
