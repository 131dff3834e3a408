"""The head of a dataset card: what the Hub shows and `datasets` reads before any picture.

https://github.com/huggingface/hub-docs/blob/main/datasetcard.md
"""

from collections.abc import Mapping, Sequence

from isekai import parquet
from isekai.card import yaml_text
from isekai.card.facts import Facts, title
from isekai.parquet import SPLITS

OWN = "folder"
"""The source that takes a user's own pictures instead of making some."""


def front_matter(all_facts: Sequence[Facts]) -> str:
    """YAML between its rules. The first dataset is the one that is loaded if none is named."""
    licences = sorted({one.license for one in all_facts})
    sources = {maker.source for one in all_facts for maker in one.makers}
    tags = ["isekai", "benchmark", "few-shot", "in-context-learning", "novel-concepts"]
    creators = []
    if sources != {OWN}:
        creators.append("machine-generated")  # a picture is asked for by the name of its concept
        tags += [] if OWN in sources else ["synthetic"]
    if OWN in sources:
        creators.append("other")
    told: dict[str, object] = {
        "pretty_name": title(all_facts),
        "license": licences[0] if len(licences) == 1 else licences,
        "language": ["en"],
        "multilinguality": ["monolingual"],
        "annotations_creators": creators,
        "source_datasets": ["original"],
        "task_categories": ["image-classification", "image-text-to-text"],
        "size_categories": [_size_category(sum(one.manifest.images for one in all_facts))],
        "tags": tags,
        "configs": [_config(one, first=one is all_facts[0]) for one in all_facts],
        "dataset_info": [_info(one) for one in all_facts],
    }
    return f"---\n{yaml_text.dump(told)}---"


def _size_category(rows: int) -> str:
    """The Hub's word for a number of rows."""
    steps = (
        *(("n<1K", 1e3), ("1K<n<10K", 1e4), ("10K<n<100K", 1e5), ("100K<n<1M", 1e6)),
        ("1M<n<10M", 1e7),
    )
    return next((name for name, below in steps if rows < below), "10M<n<100M")


def _config(facts: Facts, *, first: bool) -> dict[str, object]:
    return {
        "config_name": facts.name,
        **({"default": True} if first else {}),
        "data_files": [
            {"split": split, "path": f"{facts.name}/{split}-*.parquet"} for split in SPLITS
        ],
    }


def _info(facts: Facts) -> dict[str, object]:
    """`dataset_info`: columns and sizes, which save a reader from opening the files.

    `num_bytes` is that of the columns in the files, uncompressed: nearly what they take in Arrow.
    """
    shards = {split: facts.of(split) for split in SPLITS}
    unpacked = {split: sum(shard.unpacked for shard in shards[split]) for split in SPLITS}
    return {
        "config_name": facts.name,
        "features": [
            {"name": name, "dtype": _dtype(feature)}
            for name, feature in parquet.features(facts.groups).items()
        ],
        "splits": [
            {
                "name": split,
                "num_bytes": unpacked[split],
                "num_examples": sum(shard.rows for shard in shards[split]),
            }
            for split in SPLITS
        ],
        "download_size": sum(shard.size for shard in facts.shards),
        "dataset_size": sum(unpacked.values()),
    }


def _dtype(feature: object) -> object:
    """A column as `datasets` writes it into YAML."""
    assert isinstance(feature, Mapping)
    if feature["_type"] == "ClassLabel":
        return {"class_label": {"names": {str(n): name for n, name in enumerate(feature["names"])}}}
    return "image" if feature["_type"] == "Image" else feature["dtype"]
