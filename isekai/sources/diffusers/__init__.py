"""Draws with diffusion models: any text-to-image repository or folder in the diffusers layout."""
