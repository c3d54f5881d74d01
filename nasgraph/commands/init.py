"""`nasgraph init`: predicted weights for a user's own model."""

from pathlib import Path
from typing import Annotated

import typer

from nasgraph.commands.options import DeviceOption, JsonOption, SeedOption, WrongUsageError
from nasgraph.commands.trace import ModelArgument, ShapesOption, TokensOption


def init(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("-o", "--out", help="Write the weights here (.safetensors).")],
    ghn: Annotated[
        str,
        typer.Option("--ghn", help="Name of a shipped hypernetwork (see 'nasgraph ghn list'), or a folder."),
    ] = "ghn-digits",
    input_shape: ShapesOption = None,
    tokens: TokensOption = None,
    orthogonal: Annotated[
        bool, typer.Option("--orthogonal", help="Replace weights by the nearest orthogonal ones.")
    ] = False,
    noise: Annotated[
        float, typer.Option("--noise", min=0, help="Noise on weights, relative to their size.")
    ] = 0.0,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Predict all weights of any torch model, and write them by the model's own parameter names.

    Load them with 'model.load_state_dict(safetensors.torch.load_file(FILE), strict=False)'. Parameters that no output
    depends on keep the model's own initial values, and are written too. Running statistics of batch norms are
    not predicted: run a few batches in training mode before you evaluate.
    """
    from nasgraph.commands.factories import example_inputs, load_factory
    from nasgraph.commands.output import Output
    from nasgraph.hyper import initialise
    from nasgraph.hyper.checkpoint import save_tensors
    from nasgraph.pipeline import open_ghn, pick_device
    from nasgraph.pipeline.hypernetworks import named_ghn

    if out.suffix.lower() != ".safetensors":
        raise WrongUsageError(f"Expected '-o' to end with .safetensors (got {str(out)[:200]!r})")
    output = Output(json_mode=json)
    network = open_ghn(named_ghn(ghn), device=pick_device(device))
    module, python = load_factory(model)
    inputs = example_inputs(python, input_shape or (), tokens or ())
    result = initialise(network, module, inputs, orthogonal=orthogonal, noise=noise, seed=seed)
    own = {name: parameter.detach() for name, parameter in module.named_parameters()}
    save_tensors(out, {**own, **result.parameters})
    predicted = sum(tensor.numel() for tensor in result.parameters.values())
    if not json:
        output.facts(
            {
                "predicted": f"{predicted:,} numbers in {len(result.parameters)} parameters",
                "kept as they were": ", ".join(result.kept) or "none",
                "nodes": len(result.traced.graph),
            },
            title=f"{model}, by {ghn}",
        )
        output.message(f"Wrote {out}")
    output.result(
        {
            "model": model,
            "ghn": ghn,
            "predicted_parameters": len(result.parameters),
            "predicted_elements": predicted,
            "kept": list(result.kept),
            "written": str(out),
        }
    )
