"""Who may import whom, so that a newcomer finds each thing in one place."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("isekai", "model_adapters")
    for path in sorted((ROOT / package).rglob("*.py"))
}
STEPS = {
    *("invent", "generate", "preview", "verify", "sign", "build", "bench", "score", "compare"),
    *("check", "novelty", "review", "push", "pull"),
    *("reporting", "export", "demo"),
}
HEAVY = {
    *("diffusers", "transformers", "accelerate", "safetensors", "peft"),
    *("torch", "torchvision", "open_clip", "timm", "sklearn", "matplotlib", "pandas", "datasets"),
    *("openai", "anthropic", "inspect_ai", "huggingface_hub"),
}


def imports(module: str, *, at_top: bool = False) -> set[str]:
    """Full names that a module imports, anywhere or at its top; type checking aside."""
    tree = ast.parse(MODULES[module].read_text())
    found = set()
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_in_its_first_line_what_it_is(module):
    told = ast.get_docstring(ast.parse(MODULES[module].read_text()))
    assert told
    assert told.splitlines()[0].endswith(".")


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("isekai")])
def test_the_package_knows_no_adapter_and_nothing_knows_the_command_line(module):
    found = imports(module)
    assert not {name for name in found if name.startswith("model_adapters")}
    assert "isekai.cli" not in found


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("model_adapters")])
def test_an_adapter_knows_the_nouns_the_seams_and_the_border_but_no_data_set(module):
    own = {name.split(".")[1] for name in imports(module) if name.startswith("isekai.")}
    assert own <= {"types", "errors", "protocols", "files", "images", "plugins", "embeddings"}


def test_steps_meet_in_files_and_what_lies_below_does_not_know_them():
    steps = {f"isekai.{step}" for step in STEPS}
    for module in MODULES:
        # A preview draws; what is sent is checked before, and what is brought after.
        allowed = ("isekai.cli", "isekai.commands.", "isekai.demo", "isekai.preview", "isekai.push",
                   "isekai.pull")  # fmt: skip
        if not module.startswith(allowed):
            assert not (imports(module) & steps) - {module}, module


def test_the_nouns_and_errors_need_the_standard_library_alone():
    for module in ("isekai.types", "isekai.errors"):
        assert not [name for name in imports(module) if name.startswith(("isekai", "numpy"))]


def test_heavy_packages_come_late_or_at_the_top_of_what_is_loaded_late():
    """Plugins, plots and what others run may name them at the top: nothing else loads these."""
    late = (
        "isekai.gates.",
        "isekai.sources.diffusers.",
        "isekai.embedders.",
        "isekai.exports.packages.",
        "isekai.reports.plots",
        "model_adapters.",
    )
    for module in MODULES:
        if not module.startswith(late):
            top = {name.split(".")[0] for name in imports(module, at_top=True)}
            assert not top & HEAVY, module
