"""Image regression for zoo: one or several numbers for each image."""
