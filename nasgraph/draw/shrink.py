"""Making the picture of a large graph small: repeated blocks drawn once, and groups of nodes drawn as one box.

Both rest on *cuts*: boxes through which everything passes that goes on. Between two cuts lies a segment, such as one
residual block; equal segments in a row are one repeated block.
"""

from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from dataclasses import replace
from math import ceil

from nasgraph.draw.fold import Box, Picture, Repeat

MAX_GROUPS = 48
"""Least number of boxes that a picture of groups may be divided into. It has at most about this many."""
MAX_PERIOD = 16
"""Longest repeated block, in segments."""


def cuts_of(picture: Picture) -> list[int]:
    """Boxes in order after which only their own value is still needed, the last box included."""
    last_use = list(range(len(picture.boxes)))
    for index, box in enumerate(picture.boxes):
        for source in box.inputs:
            last_use[source] = index
    for output in picture.outputs:
        last_use[output] = len(picture.boxes)
    cuts, needed_until = [], -1
    for index, last in enumerate(last_use):
        if needed_until <= index:
            cuts.append(index)
        needed_until = max(needed_until, last)
    return cuts if cuts and cuts[-1] == len(picture.boxes) - 1 else [*cuts, len(picture.boxes) - 1]


def repeated_runs(picture: Picture) -> tuple[Repeat, ...]:
    """Equal blocks in a row: `times` blocks from box `first` on, the first of which ends with box `last`.

    Equal: the same lines, shapes and connections, box for box.
    """
    cuts = cuts_of(picture)
    spans = [(first + 1, last) for first, last in zip([-1, *cuts], cuts, strict=False)]
    signatures = [_signature(picture.boxes, first, last) for first, last in spans]
    runs = _find_runs(signatures, [last - first + 1 for first, last in spans])
    return tuple(
        Repeat(spans[start][0], spans[start + period - 1][1], times) for start, period, times in runs
    )


def fold_repeats(picture: Picture, runs: Sequence[Repeat] | None = None) -> Picture:
    """Draw equal consecutive blocks once. The box that stands for several lists the nodes of all of them.

    Args:
        picture: Without repeats so far.
        runs: Some of its `repeated_runs`; None: all.
    """
    runs = repeated_runs(picture) if runs is None else runs
    if not runs:
        return picture
    stand_in = list(range(len(picture.boxes)))
    for run in runs:
        length = run.last + 1 - run.first
        for index in range(run.first, run.first + length * run.times):
            stand_in[index] = run.first + (index - run.first) % length
    kept = [index for index, other in enumerate(stand_in) if index == other]
    place = {index: position for position, index in enumerate(kept)}
    copies: dict[int, list[int]] = {index: [] for index in kept}
    for index, other in enumerate(stand_in):
        copies[other].extend(picture.boxes[index].nodes)
    boxes = tuple(
        replace(
            picture.boxes[index],
            nodes=tuple(copies[index]),
            inputs=tuple(place[stand_in[source]] for source in picture.boxes[index].inputs),
        )
        for index in kept
    )
    repeats = tuple(Repeat(place[run.first], place[run.last], run.times) for run in runs)
    note = f"Equal blocks in a row are drawn once: {len(picture.boxes):,} boxes as {len(boxes):,}."
    outputs = tuple(place[stand_in[output]] for output in picture.outputs)
    return Picture(boxes, outputs, repeats, (*picture.notes, note))


def _signature(boxes: Sequence[Box], first: int, last: int) -> Hashable:
    return tuple(
        (box.lines, box.shape, box.num_parameters, tuple(max(source - first, -1) for source in box.inputs))
        for box in boxes[first : last + 1]
    )


def _find_runs(signatures: Sequence[Hashable], sizes: Sequence[int]) -> list[tuple[int, int, int]]:
    """Repeated blocks as (first segment, segments per block, times); at each place the one that saves most boxes."""
    runs: list[tuple[int, int, int]] = []
    start = 0
    while start < len(signatures):
        best = (0, 0, 1)  # boxes saved, minus the period, times
        for period in range(1, MAX_PERIOD + 1):
            end = start
            while end + period < len(signatures) and signatures[end] == signatures[end + period]:
                end += 1
            times = (end - start) // period + 1
            best = max(best, (sum(sizes[start : start + period]) * (times - 1), -period, times))
        if best[2] == 1:
            start += 1
        else:
            runs.append((start, -best[1], best[2]))
            start += -best[1] * best[2]
    return runs


def group_boxes(picture: Picture, *, opened: Collection[int] = ()) -> Picture:
    """Draw runs of boxes as one box each, at most about `MAX_GROUPS`, split at cuts where there are any nearby.

    A connection between groups that a longer path implies is left out.

    Args:
        picture: Without repeats.
        opened: Groups, by their place among `groups_of`, whose boxes are drawn out.
    """
    group_of: list[int] = []
    previous = -1
    for owner in groups_of(picture):
        starts_group = owner != previous or owner in opened
        last = group_of[-1] if group_of else -1
        group_of.append(last + 1 if starts_group else last)
        previous = owner
    members: list[list[int]] = [[] for _ in range(group_of[-1] + 1)]
    for index, owner in enumerate(group_of):
        members[owner].append(index)
    inputs = _direct([_sources(picture, group_of, indices) for indices in members])
    boxes = tuple(_group([picture.boxes[i] for i in indices], inputs[g]) for g, indices in enumerate(members))
    outputs = tuple(dict.fromkeys(group_of[output] for output in picture.outputs))
    num_nodes = sum(len(box.nodes) for box in picture.boxes)
    note = f"{num_nodes:,} nodes are drawn as {len(boxes):,} boxes; connections that a longer path implies are left out."
    return Picture(boxes, outputs, (), (*picture.notes, note))


def groups_of(picture: Picture) -> tuple[int, ...]:
    """The group, from 0, that each box belongs to in `group_boxes`."""
    target = ceil(len(picture.boxes) / MAX_GROUPS)
    cuts = set(cuts_of(picture))
    groups: list[int] = []
    group, size = 0, 0
    for index in range(len(picture.boxes)):
        groups.append(group)
        size += 1
        if size >= 2 * target or (size >= target and index in cuts):
            group, size = group + 1, 0
    return tuple(groups)


def _sources(picture: Picture, group_of: Sequence[int], indices: Sequence[int]) -> set[int]:
    return {group_of[source] for index in indices for source in picture.boxes[index].inputs} - {
        group_of[indices[0]]
    }


def _direct(inputs: Sequence[set[int]]) -> list[tuple[int, ...]]:
    """Transitive reduction: the inputs that no other input leads to."""
    ancestors: list[set[int]] = []
    direct = []
    for sources in inputs:
        implied = set[int]().union(*(ancestors[source] for source in sources))
        ancestors.append(implied | sources)
        direct.append(tuple(sorted(sources - implied)))
    return direct


def _group(boxes: Sequence[Box], inputs: tuple[int, ...]) -> Box:
    if len(boxes) == 1:
        return replace(boxes[0], inputs=inputs)
    counts = Counter(line for box in boxes for line in box.lines)
    nodes = tuple(node for box in boxes for node in box.nodes)
    frequent = tuple((f"{count:,} {text}", family) for (text, family), count in _most_frequent(counts))
    return Box(
        lines=((f"{len(nodes):,} nodes", "group"), *frequent[:3]),
        family="group",
        nodes=nodes,
        inputs=inputs,
        shape=boxes[-1].shape,
        num_parameters=sum(box.num_parameters for box in boxes),
        tooltip="\n".join(text for text, _ in frequent),
    )


def _most_frequent(counts: Counter[tuple[str, str]]) -> list[tuple[tuple[str, str], int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
