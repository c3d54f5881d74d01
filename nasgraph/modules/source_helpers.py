"""Functions that a written file gets where one of its lines uses them."""

from collections.abc import Mapping

HELPERS: Mapping[str, str] = {
    "attend": '''\
def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    num_heads: int,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Scaled dot-product attention; the heads stand side by side on the last axis."""
    query, key, value = (x.unflatten(-1, (num_heads, -1)).transpose(-2, -3) for x in (query, key, value))
    if mask is not None:
        mask = mask if mask.is_floating_point() else mask != 0
        mask = mask if mask.dim() == query.dim() else mask.unsqueeze(-3)
        mask = mask.expand(*mask.shape[:-2], query.shape[-2], key.shape[-2])
        if causal:
            seen = torch.ones(mask.shape[-2:], dtype=torch.bool, device=mask.device).tril()
            mask = mask & seen if mask.dtype == torch.bool else mask.masked_fill(~seen, -torch.inf)
    causal = causal and mask is None
    x = F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal, scale=scale)
    return x.transpose(-2, -3).flatten(-2)
''',
    "per_example": '''\
def per_example(function: Callable[..., Tensor], *tensors: Tensor, **settings: object) -> Tensor:
    """Apply a function of data, weight and bias where each example has a weight of its own."""

    def single(x: Tensor, *given: Tensor) -> Tensor:
        return function(x.unsqueeze(0), *given, **settings).squeeze(0)

    return torch.vmap(single)(*tensors)
''',
    "pad_axes": '''\
def pad_axes(x: Tensor, amounts: tuple[tuple[int, int], ...], *, mode: str) -> Tensor:
    """Add elements before and after each axis but the first: by "reflect", "replicate" or "circular"."""
    for axis, (before, after) in enumerate(amounts, start=1):
        size = x.shape[axis]
        place = torch.arange(-before, size + after, device=x.device)
        if mode == "reflect":
            place = size - 1 - (size - 1 - place.abs()).abs()
        place = place.clamp(0, size - 1) if mode == "replicate" else place.remainder(size)
        x = x.index_select(axis, place)
    return x
''',
    "drop_path": '''\
def drop_path(x: Tensor, p: float, training: bool) -> Tensor:
    """While training, all zeros for random examples, and the others larger by as much as keeps the mean."""
    if not training or p == 0:
        return x
    keep = (torch.rand(len(x), device=x.device) >= p).to(x).reshape(-1, *[1] * (x.dim() - 1))
    return x * keep / (1 - p) if p < 1 else torch.zeros_like(x)
''',
    "take": '''\
def take(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """In each example, the parts along one axis that its indices list."""
    places = [1] * x.dim()
    places[0], places[axis] = indices.shape
    wanted = list(x.shape)
    wanted[axis] = indices.shape[1]
    return x.gather(axis, indices.reshape(places).expand(wanted))
''',
}
"""Functions that a file gets where one of its lines uses them."""
