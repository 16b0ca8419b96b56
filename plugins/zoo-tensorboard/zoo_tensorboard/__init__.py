"""Writes what zoo trains for TensorBoard."""
