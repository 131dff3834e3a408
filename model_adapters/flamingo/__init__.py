"""OpenFlamingo and Otter: one network for both, two readers of checkpoints, and their prompts."""
