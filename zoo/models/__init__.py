"""The torch side of a backbone: build, weights, heads, outputs, freezing."""
