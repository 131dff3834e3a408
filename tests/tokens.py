"""Small tokenizers of the kinds that text encoders use, trained on the prompts of isekai-20."""

import json
from collections.abc import Sequence
from functools import cache

from isekai import spec

VOCABULARY = 800
"""Entries at most: all bytes, with and without an end of word, and some hundred pieces of words."""

EVERYTHING = " ".join(map(chr, range(33, 0x180)))
"""Each character of ASCII, and each byte that a longer one can end in."""

QWEN_IMAGE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity,"
    " text, spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n"
)
"""What `QwenImagePipeline` puts before a prompt: it takes it to be 34 tokens, words unbroken."""

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""The chat template of Qwen 3, as far as plain text needs it."""


@cache
def _texts() -> Sequence[str]:
    concepts = [concept for group in spec.load()[:8] for concept in group.concepts]
    prompts = [spec.expand(concept, index) for concept in concepts for index in range(2)]
    return [EVERYTHING, *(concept.definition for concept in concepts), *prompts]


def clip(*, pad: str = "<|endoftext|>"):
    """A CLIPTokenizer: byte-level BPE in lower case, 77 tokens at most."""
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer
    from transformers import CLIPTokenizer

    marks = ["<|startoftext|>", "<|endoftext|>"]
    alphabet = sorted(ByteLevel.alphabet())
    ends = [f"{byte}</w>" for byte in alphabet]  # named here, for the trainer shuffles them
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[*marks, *ends],
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    vocab, merges = _trained(CLIPTokenizer(), trainer)
    return CLIPTokenizer(vocab=vocab, merges=merges, pad_token=pad, model_max_length=77)


def t5(*, longest: int = 512):
    """A T5Tokenizer: Unigram, without T5's sentinels. Threads shuffle ties and last digits."""
    from tokenizers.trainers import UnigramTrainer
    from transformers import T5Tokenizer

    marks = ["<pad>", "</s>", "<unk>"]
    trainer = UnigramTrainer(
        vocab_size=VOCABULARY, special_tokens=marks, unk_token="<unk>", show_progress=False
    )
    vocab, _ = _trained(T5Tokenizer(), trainer)
    pieces = sorted((-round(score, 3), piece) for piece, score in vocab[len(marks) :])
    scored = [*((mark, 0.0) for mark in marks), *((piece, -cost) for cost, piece in pieces)]
    return T5Tokenizer(vocab=scored, extra_ids=0, model_max_length=longest)


def qwen():
    """A Qwen2Tokenizer with the chat template of Qwen 3."""
    from transformers import Qwen2Tokenizer

    marks = ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    plain = QWEN_IMAGE.replace("<|im_start|>", "").replace("<|im_end|>", "")
    trained = Qwen2Tokenizer(model_max_length=1024).train_new_from_iterator(
        [*_texts(), *[plain] * 100], VOCABULARY, new_special_tokens=marks, show_progress=False
    )
    trained.chat_template = CHAT
    return trained


def gemma():
    """A GemmaTokenizer: BPE over characters."""
    from transformers import GemmaTokenizer

    return GemmaTokenizer().train_new_from_iterator(_texts(), VOCABULARY, show_progress=False)


def _trained(empty, trainer):
    """The vocabulary and the merges, if there are any, that a tokenizer's own rules lead to."""
    backend = empty.backend_tokenizer
    backend.train_from_iterator(_texts(), trainer)
    model = json.loads(backend.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model.get("merges", ())]
