"""What a population consists of: which architectures, how many networks of each, trained how, on what."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

import numpy as np

from nasgraph.files import Json, canonical_json, parse_json
from nasgraph.ir import ComputationalGraph, graph_from_json, graph_to_json
from nasgraph.meta.population.settings import NetworkSettings, PopulationError, Ranges, draw_settings
from nasgraph.seeding import derive_seed, generator
from nasgraph.spaces import Architecture, SearchSpace, architecture_from_json, sample

SCHEMA = "nasgraph/population-recipe/1"
UNSEEN_CLASSES = "unseen-classes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Networks of one architecture.

    Attributes:
        name: Unique in the recipe.
        graph: The architecture.
        count: How many networks.
        split: "" divides them at random into train, val and test; else the label of all, such as "unseen-width".
        architecture: The choices that led to the graph, where a search space made it.
        ranges: What their settings are drawn from; None: the recipe's.
        parent: The family whose trained networks these start from ("fine-tune"); "" where they start from random weights.
    """

    name: str
    graph: ComputationalGraph
    count: int
    split: str = ""
    architecture: Architecture | None = None
    ranges: Ranges | None = None
    parent: str = ""

    def __post_init__(self) -> None:
        if not self.name or self.count < 1:
            raise PopulationError(
                f"Expected a name and a 'count' of at least 1 (got {self.name!r}, {self.count})"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides a population. Equal recipes and data give equal populations on one machine.

    Attributes:
        name: Of the population.
        data: Name or path of the data set, see `nasgraph.data.load_dataset`.
        families: What it consists of. A parent stands before its children.
        ranges: What settings are drawn from.
        seed: Of everything.
        batch_size: Examples per step.
        snapshots: When states are kept on the way, as shares of each network's steps.
        shard_size: Networks per shard: what is trained at once, written at once, and lost at most when the process is killed.
        num_probes: Validation examples whose logits are stored.
        val_share, test_share: Of the networks of families without a label.
        unseen_class_sets: How many of the class sets are labelled "unseen-classes"; chosen at random, the same for all families.
        image_size, num_train: Of the data set.
        store_initial: Whether initial weights are stored; otherwise readers draw them again from the seeds.
    """

    name: str
    data: str
    families: tuple[Family, ...]
    ranges: Ranges = field(default_factory=Ranges)
    seed: int = 0
    batch_size: int = 64
    snapshots: tuple[float, ...] = (0.1, 0.3, 0.6)
    shard_size: int = 250
    num_probes: int = 64
    val_share: float = 0.075
    test_share: float = 0.25
    unseen_class_sets: int = 0
    image_size: int | None = None
    num_train: int | None = None
    store_initial: bool = True

    def __post_init__(self) -> None:
        names = [family.name for family in self.families]
        if not names or len(set(names)) != len(names):
            raise PopulationError("Expected at least one family, and no name twice")
        by_name = {family.name: (place, family) for place, family in enumerate(self.families)}
        for place, family in enumerate(self.families):
            if not family.parent:
                continue
            if family.parent not in by_name or by_name[family.parent][0] >= place:
                raise PopulationError(
                    f"The parent '{family.parent}' of '{family.name}' does not stand before it"
                )
            if by_name[family.parent][1].graph != family.graph:
                raise PopulationError(f"'{family.name}' has another architecture than its parent")
        if self.shard_size < 1 or self.num_probes < 1 or self.batch_size < 2:
            raise PopulationError(
                "Expected 'shard_size' and 'num_probes' of at least 1, 'batch_size' of at least 2"
            )
        if min(self.val_share, self.test_share) < 0 or self.val_share + self.test_share >= 1:
            raise PopulationError("Expected 'val_share' and 'test_share' of at least 0, together below 1")
        if list(self.snapshots) != sorted(self.snapshots) or any(not 0 <= s <= 1 for s in self.snapshots):
            raise PopulationError(
                f"Expected 'snapshots' as ascending shares from 0 to 1 (got {self.snapshots})"
            )

    @property
    def count(self) -> int:
        """Networks of all families."""
        return sum(family.count for family in self.families)

    def settings(self, family: Family) -> list[NetworkSettings]:
        """The settings of the networks of a family, each independent of how many there are."""
        seed = derive_seed(self.seed, "family", family.name)
        ranges = family.ranges or self.ranges
        return [draw_settings(ranges, seed=seed, index=place) for place in range(family.count)]

    def parents(self, family: Family) -> list[int]:
        """For each network of a family the place of its parent within the parent's family; -1 without."""
        if not family.parent:
            return [-1] * family.count
        rng = generator(self.seed, "parents", family.name)
        count = next(other.count for other in self.families if other.name == family.parent)
        return [int(place) for place in rng.integers(count, size=family.count)]

    def splits(self, family: Family) -> list[str]:
        """The split label of each network of a family. Children stand where their parents stand."""
        if family.split:
            return [family.split] * family.count
        if family.parent:
            above = self.splits(next(other for other in self.families if other.name == family.parent))
            return [above[place] for place in self.parents(family)]
        labels = np.array(["train"] * family.count, dtype=object)
        order = generator(self.seed, "split", family.name).permutation(family.count)
        num_test, num_val = round(self.test_share * family.count), round(self.val_share * family.count)
        labels[order[:num_test]] = "test"
        labels[order[num_test : num_test + num_val]] = "val"
        sets = (family.ranges or self.ranges).class_sets
        if sets and self.unseen_class_sets:
            unseen = generator(self.seed, "unseen classes").permutation(len(sets))[: self.unseen_class_sets]
            is_unseen = np.isin(np.arange(family.count) % len(sets), unseen)
            labels = np.where(is_unseen, UNSEEN_CLASSES, np.where(labels == "test", "train", labels))
        return [str(label) for label in labels]

    def to_json(self) -> dict[str, Json]:
        """All fields as JSON; `recipe_from_json` reads them back equal."""
        document: dict[str, Any] = {
            each.name: getattr(self, each.name) for each in fields(self) if each.name != "families"
        }
        document["ranges"] = asdict(self.ranges)
        document["families"] = [_family_to_json(family) for family in self.families]
        document["schema"] = SCHEMA
        return document


def _family_to_json(family: Family) -> dict[str, Any]:
    return {
        "name": family.name,
        "graph": graph_to_json(family.graph),
        "count": family.count,
        "split": family.split,
        "architecture": None if family.architecture is None else family.architecture.to_json(),
        "ranges": None if family.ranges is None else asdict(family.ranges),
        "parent": family.parent,
    }


def recipe_from_json(value: Json, *, source: str) -> Recipe:
    """A recipe that may come from a stranger.

    Raises:
        PopulationError: If it has another form. The message begins with `source`.
        NasGraphError: If a graph in it breaks a rule of the graph language.
    """
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise PopulationError(f"Expected a recipe with schema '{SCHEMA}' in {source}")
    given: dict[str, Any] = {name: item for name, item in value.items() if name != "schema"}
    known = {each.name for each in fields(Recipe)}
    if set(given) != known:
        wrong = sorted(known ^ set(given))
        raise PopulationError(f"The recipe in {source} lacks or has too much: {', '.join(wrong)}")
    try:
        families = tuple(_family_from_json(item, source) for item in given.pop("families"))
        ranges = _ranges_from_json(given.pop("ranges"))
        given["snapshots"] = tuple(given["snapshots"])
        return Recipe(families=families, ranges=ranges, **given)
    except (TypeError, KeyError, AttributeError) as error:
        raise PopulationError(f"The recipe in {source} has another form: {error}") from error


def _ranges_from_json(value: Mapping[str, Any]) -> Ranges:
    given = dict(value)
    for name, item in given.items():
        if isinstance(item, list):
            given[name] = tuple(tuple(inner) if isinstance(inner, list) else inner for inner in item)
    return Ranges(**given)


def _family_from_json(value: Mapping[str, Any], source: str) -> Family:
    text = value["architecture"]
    return Family(
        name=value["name"],
        graph=graph_from_json(value["graph"], source=source),
        count=value["count"],
        split=value["split"],
        architecture=None if text is None else architecture_from_json(parse_json(text, source=source)),
        ranges=None if value["ranges"] is None else _ranges_from_json(value["ranges"]),
        parent=value["parent"],
    )


def families_from_space(
    space: SearchSpace, *, architectures: int, count: int, seed: int = 0, split: str = ""
) -> tuple[Family, ...]:
    """Families of architectures sampled from a search space, each graph once.

    Args:
        space: Where from.
        architectures: How many different graphs.
        count: Networks of each.
        seed: Decides which.
        split: See `Family.split`.

    Raises:
        PopulationError: If the space does not have that many graphs (after 50 tries for each).
    """
    rng = generator(seed, "families", space.name)
    found: dict[str, Family] = {}
    for _ in range(50 * architectures):
        candidate = sample(space, rng)
        key = candidate.graph.fingerprint
        if key not in found:
            found[key] = Family(
                name=f"{space.name}-{len(found)}",
                graph=candidate.graph,
                count=count,
                split=split,
                architecture=candidate.architecture,
            )
        if len(found) == architectures:
            return tuple(found.values())
    raise PopulationError(f"The space '{space.name}' did not give {architectures} different architectures")


def recipe_digest(recipe: Recipe) -> str:
    """A text that is equal for equal recipes only."""
    return hashlib.sha256(canonical_json(cast(Json, recipe.to_json())).encode()).hexdigest()
