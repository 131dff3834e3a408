"""Tells ahead what pictures take: texts, downloads, memory on disk, hours."""


def lines(*a):
    return []
