"""LCL-Shikra: the model of Link-Context Learning (arXiv:2308.07891), as its released code runs it.

adapter.py       `LclShikra`: how a user gets it
asking.py        an episode as pieces of tokens, and labels as answers
conversation.py  the text of a conversation, how its pieces are joined, what training looks at
tokens.py        the tokenizer that the checkpoints were trained with
pixels.py        what a picture becomes; vision.py, what the vision tower makes of it
splice.py        where it goes in the sequence
network.py       the language model with its projector, read from a checkpoint (config.py)
rope.py          positions as the released evaluation damaged them

Written from a description of the released code at commit 7a4c33b, and held to numbers recorded from
it. On purpose, three things are otherwise: transparent pictures lie on white, where the released
code shows what is beneath; words that spell a token are refused; numbers that are none are errors.
"""
