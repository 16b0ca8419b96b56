"""Phases of training: batches, steps, the loop, the best checkpoint."""
