"""Where images come from: one module or package a source, found through entry points."""
