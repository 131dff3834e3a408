"""Writes croissant.json: the datasets of a repository in the vocabulary of MLCommons Croissant 1.1.

https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html; the file is plain JSON-LD, so
that writing it takes no package. Paths are relative to it.
"""

from collections.abc import Iterator, Mapping, Sequence

from isekai import parquet
from isekai.card.citation import SPDX, bibtex
from isekai.card.facts import Facts, authors, title, version
from isekai.parquet import COLUMNS, SPLITS
from isekai.types import Split

Json = dict[str, object]

_CONTEXT: Json = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that the specification prints, which readers compare with."""

_TYPES = {"string": "sc:Text", "int32": "cr:Int32", "int64": "cr:Int64"}


def document(all_facts: Sequence[Facts], told: Mapping[str, object]) -> Json:
    """The whole file; `told` has what the card says, too, under Croissant's names."""
    licences = sorted({_licence(one.license) for one in all_facts})
    made: Json = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": title(all_facts),
        "license": licences[0] if len(licences) == 1 else licences,
        "version": f"1.0.0+{version(all_facts)}",
        "citeAs": bibtex(all_facts),
        "inLanguage": "en",
        "isLiveDataset": False,
        **told,
        "distribution": [node for one in all_facts for node in _distribution(one)],
        "recordSet": [node for one in all_facts for node in _record_sets(one)],
    }
    if named := authors(all_facts):
        made["creator"] = [{"@type": "sc:Organization", "name": name} for name in named]
    return made


def _licence(name: str) -> str:
    return f"https://spdx.org/licenses/{SPDX[name]}" if name in SPDX else name


def _distribution(facts: Facts) -> Iterator[Json]:
    """Each Parquet file with its hash, and a split of several files as their set."""
    for shard in facts.shards:
        yield {
            "@type": "cr:FileObject",
            "@id": f"{facts.name}/{shard.name}",
            "name": f"{facts.name}/{shard.name}",
            "description": f"{shard.rows} pictures of the split {shard.split}.",
            "contentUrl": f"{facts.name}/{shard.name}",
            "contentSize": f"{shard.size} B",
            "encodingFormat": "application/x-parquet",
            "sha256": shard.sha256,
        }
    for split in SPLITS:
        if len(facts.of(split)) > 1:
            yield {
                "@type": "cr:FileSet",
                "@id": _set(facts, split),
                "name": _set(facts, split),
                "description": f"All files of the split {split}.",
                "encodingFormat": "application/x-parquet",
                "includes": f"{facts.name}/{split}-*.parquet",
            }


def _set(facts: Facts, split: Split) -> str:
    return f"{facts.name}/{split}-files"


def _record_sets(facts: Facts) -> Iterator[Json]:
    """The class labels of a dataset, then a record set a split."""
    for name, names in _labels(facts).items():
        own = f"{facts.name}/{name}-labels"
        yield {
            "@type": "cr:RecordSet",
            "@id": own,
            "name": own,
            "description": f"What the numbers in the column {name} stand for.",
            "dataType": "sc:Enumeration",
            "key": {"@id": f"{own}/number"},
            "field": [
                _field(own, "number", "cr:Int64", "The number."),
                _field(own, "name", "sc:Text", "What it stands for."),
            ],
            "data": [
                {f"{own}/number": number, f"{own}/name": label}
                for number, label in enumerate(names)
            ],
        }
    for split in SPLITS:
        own = f"{facts.name}/{split}"
        yield {
            "@type": "cr:RecordSet",
            "@id": own,
            "name": own,
            "description": f"The split {split} of {facts.manifest.title}.",
            "key": {"@id": f"{own}/image_id"},
            "field": [
                {
                    **_field(own, "split", "sc:Text", "The split, the same in every row."),
                    "value": split,
                },
                *(_column(facts, split, own, name) for name in COLUMNS),
            ],
        }


def _column(facts: Facts, split: Split, owner: str, name: str) -> Json:
    kind, meaning = COLUMNS[name]
    field = {
        **_field(owner, name, _TYPES.get(str(kind), "sc:ImageObject"), meaning),
        "source": _source(facts, split, name),
    }
    if name in _labels(facts):
        field["references"] = {"field": {"@id": f"{facts.name}/{name}-labels/number"}}
    return field


def _labels(facts: Facts) -> Mapping[str, Sequence[str]]:
    """Column -> what its numbers stand for."""
    found = {}
    for column, feature in parquet.features(facts.groups).items():
        if isinstance(feature, dict) and feature["_type"] == "ClassLabel":
            found[column] = feature["names"]
    return found


def _field(owner: str, name: str, kind: str, meaning: str) -> Json:
    return {
        "@type": "cr:Field",
        "@id": f"{owner}/{name}",
        "name": f"{owner}/{name}",
        "description": meaning,
        "dataType": kind,
    }


def _source(facts: Facts, split: Split, column: str) -> Json:
    """Where a column's values are: readers check the hash of a single file."""
    first, *more = facts.of(split)
    source: Json = (
        {"fileSet": {"@id": _set(facts, split)}}
        if more
        else {"fileObject": {"@id": f"{facts.name}/{first.name}"}}
    )
    source["extract"] = {"column": column}
    if column == "image":
        source["transform"] = {"jsonPath": "bytes"}
    return source
