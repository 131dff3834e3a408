"""What tells binding from naming: one file a control, one plain function each."""
