"""What TensorBoard reads, written without TensorFlow: event files, weights, graphs, projector files, traces."""
