"""The report of a training as one HTML file, and the comparison of several."""
