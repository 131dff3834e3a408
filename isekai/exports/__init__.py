"""What others' tools open, made from the folder of a run: one file a format."""
