"""LCL-Shikra: the model of Link-Context Learning (arXiv:2308.07891), as its released code runs it.

Written from a description of that code at commit 7a4c33b, and held to numbers recorded from it.
"""
