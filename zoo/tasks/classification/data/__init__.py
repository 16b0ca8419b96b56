"""Labelled images: folders, tables, published datasets and datasets of the user."""
