"""Backbones in torch: build, weights, heads, freezing."""
