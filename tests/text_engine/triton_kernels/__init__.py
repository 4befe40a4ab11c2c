"""The kernels on a GPU if there is one, else in Triton's interpreter."""
