"""Steps on a device that computes by itself while the host makes the next one ready."""
