"""What a network is trained to output: one folder a task."""
