"""Embedders: images in, unit vectors out. One file each, found through `isekai.embedders`."""
