"""Results as lm-evaluation-harness writes them: one file a model."""

import json
from functools import partial

from isekai import lm_eval
from isekai.exports.order import Files, Order


def files(order: Order) -> Files:
    names = lm_eval.file_names(order.run.config.models)
    return {names[model]: partial(_json, order, model) for model in order.models}


def _json(order: Order, model: str) -> bytes:
    told = lm_eval.results(order.run, model)
    return (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode()
