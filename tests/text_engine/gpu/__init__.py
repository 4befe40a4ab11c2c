"""Steps on a device: in Triton's interpreter, where there is no card."""
