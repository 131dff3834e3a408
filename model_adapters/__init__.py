"""Models behind the adapter seam: one file a family, found through `isekai.adapters`."""
