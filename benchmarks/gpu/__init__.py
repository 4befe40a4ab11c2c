"""The product on one GPU, in a few minutes and without a network: `benchmarks/gpu.sh`."""
