"""Run the real forward of every model of the coverage benchmark: that they work, how large they are, how long they take.

python -m benchmarks.ghn.check_models [--only NAME ...] [--list transformers|handwritten|bad]
"""

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter

from benchmarks.ghn.models import Model, bad_models, handwritten_models, transformers_models


def tensors_of(value: object) -> Iterator[Tensor]:
    """The tensors in an output: itself, or those inside mappings, sequences and objects with attributes."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_of(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_of(part)


def check(model: Model) -> tuple[str, int, float]:
    """Run a model: "ok" or what is wrong, the number of parameters, and the seconds of making and running it."""
    start = time.perf_counter()
    num_parameters = 0
    try:
        module = model.make()
        num_parameters = sum(0 if _is_lazy(p) else p.numel() for p in module.parameters())
        with torch.no_grad():
            outputs = list(tensors_of(module(**model.inputs())))
    except Exception as error:  # noqa: BLE001 -- the answer of the check is the failure itself
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        return message, num_parameters, time.perf_counter() - start
    seconds = time.perf_counter() - start
    if not outputs:
        return "the output holds no tensor", num_parameters, seconds
    floats = [output for output in outputs if output.is_floating_point() and output.device.type != "meta"]
    if not all(bool(output.isfinite().all()) for output in floats):
        return "an output is not finite", num_parameters, seconds
    if floats and not any(_is_visible(output) for output in floats):
        return "the outputs vanish or explode", num_parameters, seconds
    return "ok", num_parameters, seconds


def _is_visible(output: Tensor) -> bool:
    """Whether an error of 1e-5 in this output would mean something."""
    return output.numel() == 0 or 1e-3 < float(output.abs().max()) < 1e4


def _is_lazy(parameter: Tensor) -> bool:
    return isinstance(parameter, UninitializedParameter)


def check_good(models: Sequence[Model]) -> int:
    """Check models that must run; the number of failures."""
    counts: Counter[str] = Counter()
    failures = 0
    for model in models:
        answer, num_parameters, seconds = check(model)
        counts[model.family] += 1
        failures += answer != "ok"
        print(
            f"{model.family:20} {model.name:32} {num_parameters:>9,} {seconds:7.2f} s  {answer}", flush=True
        )
    print(", ".join(f"{family}: {count}" for family, count in counts.items()))
    return failures


def check_bad() -> int:
    """Check modules that must be refused or reported; the number whose forward does not do what is stated."""
    failures = 0
    for bad in bad_models():
        answer, num_parameters, seconds = check(bad.model)
        runs = answer in ("ok", "the output holds no tensor", "an output is not finite")
        failures += runs != bad.forward_runs
        verdict = "as stated" if runs == bad.forward_runs else "NOT AS STATED"
        print(
            f"{bad.model.family:20} {bad.model.name:32} {num_parameters:>9,} {seconds:7.2f} s  {verdict}: {answer}"
        )
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="names of models; all without it")
    parser.add_argument(
        "--list", choices=["transformers", "handwritten", "bad"], help="one list; all without it"
    )
    choice = parser.parse_args()
    warnings.filterwarnings("ignore")
    start, cpu, failures, count = time.perf_counter(), time.process_time(), 0, 0
    for name, models in {"transformers": transformers_models, "handwritten": handwritten_models}.items():
        if choice.list in (None, name):
            chosen = [model for model in models() if not choice.only or model.name in choice.only]
            count += len(chosen)
            failures += check_good(chosen)
    if choice.list in (None, "bad") and not choice.only:
        failures += check_bad()
    print(
        f"{count} models that must run; {failures} failed; {time.perf_counter() - start:.1f} s, {time.process_time() - cpu:.1f} s of CPU"
    )
    raise SystemExit(failures > 0)


if __name__ == "__main__":
    main()
