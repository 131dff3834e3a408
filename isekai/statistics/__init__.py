"""Shares, differences, curves and plans, with the intervals and tests that they can bear."""
