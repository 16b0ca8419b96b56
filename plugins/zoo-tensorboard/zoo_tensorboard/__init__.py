"""TensorBoard logs of zoo trainings."""
