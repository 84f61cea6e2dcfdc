"""Training on torch: data as batches, one loop, one step, and running values that stay on the device."""
