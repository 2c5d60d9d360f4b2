"""launch/gpu: what the GPU path must show, in parts. Standard library only; TensorFlow runs in other processes."""
