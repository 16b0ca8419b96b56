"""Export networks to files that other programs run."""
