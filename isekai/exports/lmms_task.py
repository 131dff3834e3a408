"""A folder of tasks for lmms-eval: fixed code, and the questions of a run as its data."""

import io
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from isekai.exports.order import Files, Order
from isekai.exports.rows import PACKAGES, asked
from isekai.reports.headings import PLAIN


def files(order: Order) -> Files:
    """A YAML and a Parquet file for every cell; `utils.py` and what it has in common; `images/`."""
    rows, pictures = asked(order)
    cells: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        cells[row["facts"]["cell"]].append(row)
    made: dict[str, Callable[[], bytes]] = {
        **pictures,
        "README.md": (PACKAGES / "lmms_task.md").read_bytes,
        "_default_template_yaml": (PACKAGES / "lmms_default.yaml").read_bytes,
        "utils.py": (PACKAGES / "lmms_utils.py").read_bytes,
    }
    for cell, own in cells.items():
        made[f"{cell}.yaml"] = partial(_yaml, cell, own[0]["facts"])
        made[f"data/{cell}.parquet"] = partial(_parquet, own)
    return made


def _yaml(cell: str, facts: Mapping[str, Any]) -> bytes:
    """Names of our own making, and numbers: no label, no text of a model or a dataset."""
    config = {
        "include": "_default_template_yaml",
        "task": cell,
        "tag": "isekai" if facts["control"] == PLAIN else "isekai_controls",
        "dataset_kwargs": {"data_files": {"test": f"data/{cell}.parquet"}},
        "metadata": {
            "version": 1.0,
            "shots_per_class": facts["shots_per_class"],
            "n_support_images": facts["n_support_images"],
        },
    }
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in config.items()).encode()


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """With a schema of its own: nothing is guessed from what labels look like."""
    text, number = pa.string(), pa.int64()
    part = pa.struct([("type", text), ("text", text), ("image", text)])
    message = pa.struct([("role", text), ("content", pa.list_(part))])
    facts = {
        "cell": text,
        "episode": text,
        "task": text,
        "control": text,
        "shots_per_class": number,
        "n_support_images": number,
        "query": number,
        "cluster": text,
        "labels": pa.list_(text),
        "chance": pa.float64(),
    }
    schema = pa.schema({"id": text, "messages": pa.list_(message), "target": text, **facts})
    flat = [{**row, **row["facts"]} for row in rows]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(flat, schema=schema), buffer)
    return buffer.getvalue()
