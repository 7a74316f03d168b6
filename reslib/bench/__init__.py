"""What is timed on this machine: the training step, and the loaders."""
