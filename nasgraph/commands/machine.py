"""What a result was measured with: hardware, versions, date and command line, as a report states them."""

import os
import platform
import shlex
import sys
import time
from pathlib import Path


def machine_facts() -> dict[str, str]:
    """Facts by name. What cannot be found out is left out."""
    from nasgraph.tracking.environment import environment_tags

    tags = environment_tags()
    commit = tags.pop("git_commit", "")
    versions = ", ".join(f"{name.removesuffix('_version')} {value}" for name, value in sorted(tags.items()))
    facts = {
        "hardware": ", ".join(part for part in (_processor(), _cores(), _memory(), _accelerators()) if part),
        "system": f"{platform.system()} {platform.release()} on {platform.machine()}",
        "versions": versions,
        "git commit of the folder": commit,
        "threads of torch": _threads(),
        "load of the machine at the end": _load(),
        "date": time.strftime("%Y-%m-%d %H:%M %z"),
    }
    return {name: text for name, text in facts.items() if text}


def command_line() -> str:
    """The command line of this process, such that it can be typed again."""
    return shlex.join(["nasgraph", *sys.argv[1:]])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _cores() -> str:
    return f"{os.cpu_count()} logical cores" if os.cpu_count() else ""


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return ""
    return f"{total / 2**30:.0f} GiB of memory"


def _accelerators() -> str:
    torch = sys.modules.get("torch")  # a command that did not load it did not compute with it
    if torch is None or not torch.cuda.is_available():
        return ""
    return ", ".join(torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count()))


def _threads() -> str:
    torch = sys.modules.get("torch")
    return str(torch.get_num_threads()) if torch is not None else ""


def _load() -> str:
    try:
        one, five, _ = os.getloadavg()
    except OSError:
        return ""
    return f"{one:.1f} in the last minute, {five:.1f} in the last five"
