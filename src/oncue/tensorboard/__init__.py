"""What TensorBoard reads, written without TensorFlow: event files, pictures of weights, graphs, projector files, traces."""
