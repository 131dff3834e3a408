"""Which devices there are, what they are called and how much memory they have."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from isekai.errors import IsekaiError

_CGROUP = Path("/sys/fs/cgroup/memory.max")
_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")


def named(names: str) -> Sequence[str]:
    """The devices with these names, commas between them; `auto`: all GPUs, or else the CPU."""
    if names == "auto":
        return _all()
    found = [name.strip() for name in names.split(",") if name.strip()]
    for name in found:
        _check(name)
    if not found:
        raise IsekaiError("devices is empty: expected auto, or names such as cuda:0,cuda:1")
    return found


def memory(device: str) -> tuple[int, int]:
    """Bytes that are free, and all there are."""
    if device == "cpu":
        return _of_the_machine()
    import torch

    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        return free, total
    total = torch.mps.recommended_max_memory()
    return total - torch.mps.driver_allocated_memory(), total


def called(device: str) -> str:
    """The maker's name of the device."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    lines = _CPUINFO.read_text().splitlines() if device == "cpu" and _CPUINFO.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else f"{platform.machine()} {device}"


def _all() -> Sequence[str]:
    import torch

    if torch.cuda.is_available():
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return ["mps"] if torch.backends.mps.is_available() else ["cpu"]


def _check(name: str) -> None:
    if name == "cpu":
        return
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise IsekaiError(f"device '{name}': expected a name such as cpu or cuda:0") from None
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise IsekaiError(f"device '{name}': {count} CUDA devices can be used here")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise IsekaiError(f"device '{name}' can't be used here")
    if device.type not in ("cuda", "mps"):
        raise IsekaiError(f"device '{name}': pictures are drawn on cpu, cuda and mps")


def _of_the_machine() -> tuple[int, int]:
    """Free and total, as far as this process may go; where free isn't told, total."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if _CGROUP.exists() and (limit := _CGROUP.read_text().strip()).isdigit():
        total = min(total, int(limit))
    lines = _MEMINFO.read_text().splitlines() if _MEMINFO.exists() else []
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min(total, *free), total
