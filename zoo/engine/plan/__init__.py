"""Resolve options into a plan: every automatic value, with its reason."""
