"""What the bench of the CUDA kernels is made of."""
