"""Proxies from gradients of the outputs, summed over outputs, one example at a time.

Batch norms use the statistics of the batch, and gradients flow through these: the gradient of an example contains a little of
the others, as in the common code.

Shape letters: B = examples in the batch, I = inputs, P = weights.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.predict.zero_cost.measure import measured
from nasgraph.predict.zero_cost.probes import Probes
from nasgraph.predict.zero_cost.records import UndefinedScoreError
from nasgraph.predict.zero_cost.watching import Layer, Watch

JITTER = 1e-5
MANY_CLASSES = 100
NTK_EXAMPLES = 32
MAX_ELEMENTS = 2**24
_GRADIENTS = Watch(layers=True)


@measured(_GRADIENTS)
def jacov(probes: Probes) -> float:
    """How little the gradients of the outputs by the inputs correlate between examples (Mellor et al. 2020, eq. 3 and 4).

    With the eigenvalues v of their correlation matrix: minus the sum of log(v + k) + 1 / (v + k), k = 1e-5. Higher is
    better. Called `jacob_cov` elsewhere, where a solver for matrices without symmetry can give complex
    eigenvalues.
    """
    correlation_BB = torch.corrcoef(_input_gradients(probes))
    if len(correlation_BB.shape) < 2:
        raise UndefinedScoreError("one example has no correlations")
    values = torch.linalg.eigvalsh(correlation_BB) + JITTER
    if not bool((values > 0).all()):
        raise UndefinedScoreError("the correlation matrix of the gradients is not positive")
    return -float((values.log() + 1 / values).sum())


@measured(_GRADIENTS)
def epe_nas(probes: Probes) -> float:
    """How the gradients of the outputs by the inputs correlate within each class (EPE-NAS, Lopes et al. 2021, eq. 4 to 6).

    Per class, e is the sum of log(|c| + 1e-5) over the entries c of its correlation matrix. The score is the sum of |e|; with
    more than 100 classes e is divided by the norm of the matrix, and the score is the sum of |e - e'| over pairs of
    classes divided by their number. Higher is better. Needs classes, and several examples in some: with more classes than
    examples it carries little.
    """
    targets = probes.examples.targets
    if targets is None or targets.is_floating_point() or targets.dim() != 1:
        raise UndefinedScoreError("the targets are not one class per example")
    gradient_BI = _input_gradients(probes)
    counts = targets.bincount()
    classes = counts.nonzero().flatten()
    if len(classes) < 2:
        raise UndefinedScoreError("all examples are of one class")
    if int(counts.max()) < 2:
        raise UndefinedScoreError("no class has two examples")
    errors = []
    for number in classes:
        rows = gradient_BI[targets == number]
        correlation = torch.corrcoef(rows) if len(rows) > 1 else rows.new_ones(1, 1)
        error = (correlation.abs() + JITTER).log().sum()
        errors.append(error / correlation.norm() if len(classes) > MANY_CLASSES else error)
    found = torch.stack(errors)
    if len(classes) <= MANY_CLASSES:
        return float(found.abs().sum())
    return float(torch.cdist(found[:, None], found[:, None], p=1).triu().sum() / len(classes))


@measured(_GRADIENTS)
def ntk(probes: Probes) -> float:
    """Minus the logarithm of the condition number of the neural tangent kernel (TE-NAS, Chen et al. 2021, eq. 2).

    The kernel is J J^T, where row i of J is the gradient of the summed outputs by example i's own copy of the weights. Without
    norms over the batch that is the gradient of the outputs of example i. At most the first 32 examples count, as
    the authors use. Higher is better: their condition number, lower is better. They take a backward pass per example; here
    one pass gives all, from the data and the gradients of each convolution and linear map. A weight that something
    else reads has no such gradient, and the network then no score.
    """
    weights, run = probes.weights(), probes.data()
    missing = sorted(set(weights) - {layer.weight for layer in run.seen.layers})
    if missing:
        raise UndefinedScoreError(f"the weight '{missing[0]}' is read by no convolution or linear map")
    gradients = probes.input_gradients().layers
    B = min(NTK_EXAMPLES, len(probes.examples))
    if B < 2:
        raise UndefinedScoreError("one example has no condition number")
    kernel_BB = torch.zeros(B, B, dtype=torch.float64, device=run.output.device)
    for name in weights:
        pairs = zip(run.seen.layers, gradients, strict=True)
        uses = [(layer, each) for layer, each in pairs if layer.weight == name and each is not None]
        if uses:
            kernel_BB += _kernel(uses, run.weights[name], B, len(probes.examples))
    values = torch.linalg.eigvalsh(kernel_BB)
    if values[0] <= 1e-7 * values[-1]:  # the gradients are in single precision
        raise UndefinedScoreError("the kernel is singular: the weights cannot tell all examples apart")
    return float((values[0] / values[-1]).log())


def _kernel(uses: list[tuple[Layer, Tensor]], weight: Tensor, B: int, batch_size: int) -> Tensor:
    """Inner products of the examples' gradients by one weight, some rows of the weight at a time."""
    if any(len(tensor) != batch_size for layer, each in uses for tensor in (layer.x, each)):
        raise UndefinedScoreError("the first axis of a layer's data is not that of the examples")
    kernel_BB = torch.zeros(B, B, dtype=torch.float64, device=weight.device)
    if len(uses) == 1 and uses[0][0].op == "linear" and uses[0][0].x.dim() == 2:
        x_BI, gradient_BO = uses[0][0].x[:B].detach().double(), uses[0][1][:B].double()
        return kernel_BB + (x_BI @ x_BI.T) * (gradient_BO @ gradient_BO.T)
    own_BP = sum(_own_gradients(layer, gradient[:B], weight, B) for layer, gradient in uses)
    assert isinstance(own_BP, Tensor)
    return kernel_BB + (own_BP @ own_BP.T).double()


def _own_gradients(layer: Layer, gradient: Tensor, weight: Tensor, B: int) -> Tensor:
    """For each example, the gradient by its own copy of the weight, as one row."""
    x = layer.x[:B].detach()
    if layer.op == "linear":
        return torch.einsum("b...o,b...i->boi", gradient, x).flatten(1)
    if layer.settings is not None:
        stride, padding, dilation, _, _, groups = layer.settings
        patches_BKL = F.unfold(x, weight.shape[2:], dilation=dilation, padding=padding, stride=stride)
        patches = patches_BKL.reshape(B, groups, -1, patches_BKL.shape[-1])
        own = gradient.reshape(B, groups, -1, patches.shape[-1])
        return torch.einsum("bgol,bgkl->bgok", own, patches).flatten(1)
    rows = []
    leaf = weight.detach().requires_grad_()
    for place in range(B):
        with torch.enable_grad():
            y = layer.again(x[place : place + 1], leaf)
        rows.append(torch.autograd.grad(y, leaf, gradient[place : place + 1])[0].flatten())
    return torch.stack(rows)


def _input_gradients(probes: Probes) -> Tensor:
    """Gradients of the summed outputs by the real-valued inputs, one row per example, in double precision."""
    if not any(tensor.is_floating_point() for tensor in probes.examples.inputs):
        raise UndefinedScoreError("no input is real-valued, so there is no gradient by it")
    gradient_BI = torch.cat([each.flatten(1) for each in probes.input_gradients().leaves], 1).double()
    if bool((gradient_BI.std(1) == 0).any()):
        raise UndefinedScoreError("the output does not depend on the input of some example")
    return gradient_BI
