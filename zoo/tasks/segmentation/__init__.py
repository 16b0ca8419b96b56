"""Semantic segmentation, the second task."""
