"""Labelled images: folders, tables, published sets and data sets of the user's own."""
