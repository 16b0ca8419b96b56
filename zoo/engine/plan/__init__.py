"""From options to a plan: every automatic value resolved, with its reason."""
