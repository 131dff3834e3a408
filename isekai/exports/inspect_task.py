"""A folder that `inspect eval` runs: fixed code, and the questions of a run as its data."""

from isekai.exports.order import Files, Order
from isekai.exports.rows import PACKAGES, asked, line


def files(order: Order) -> Files:
    """`task.py`, `README.md`, `data.jsonl` and `images/`."""
    rows, pictures = asked(order)
    return {
        **pictures,
        "data.jsonl": lambda: "".join(map(line, rows)).encode(),
        "README.md": (PACKAGES / "inspect_task.md").read_bytes,
        "task.py": (PACKAGES / "inspect_task.py").read_bytes,
    }
