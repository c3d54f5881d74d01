"""Names of zoo entries: safe as a folder, as an MLflow model and on a command line."""

import re
from dataclasses import dataclass

from nasgraph.errors import ZooError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", re.ASCII)
_ALIAS = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}", re.ASCII)
_VERSION = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_RESERVED_ALIAS = re.compile(r"latest|[vV][0-9]+")


def check_name(name: str) -> str:
    """Return `name` if it can name a zoo entry.

    Raises:
        ZooError: If it is empty, longer than 100 characters, does not begin with a letter or a digit, has characters
            other than letters, digits and `_.-`, has two dots in a row, or ends with a dot.
    """
    if not _NAME.fullmatch(name) or ".." in name or name.endswith("."):
        raise ZooError(
            f"Expected a name of letters, digits and '_.-' that begins with a letter or digit (got {name[:100]!r})"
        )
    return name


def check_alias(alias: str) -> str:
    """Return `alias` if it can point at a version.

    Raises:
        ZooError: If it is not of letters, digits and `_-`, begins with a digit, or is reserved (`latest`, `v3`).
    """
    if not _ALIAS.fullmatch(alias) or _RESERVED_ALIAS.fullmatch(alias):
        raise ZooError(
            f"Expected an alias of letters, digits and '_-', such as 'champion' (got {alias[:100]!r})"
        )
    return alias


@dataclass(frozen=True, slots=True)
class Reference:
    """One entry, or one version of it.

    Attributes:
        name: Name of the entry.
        version: Number of the version; None: the newest, or the one of `alias`.
        alias: Alias of the version; None: by number.
    """

    name: str
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        if self.alias is not None:
            return f"{self.name}@{self.alias}"
        return self.name if self.version is None else f"{self.name}/{self.version}"


def parse_reference(text: str) -> Reference:
    """Read `name`, `name/3` or `name@alias`, as in MLflow's `models:/` addresses.

    Raises:
        ZooError: If it is none of these.
    """
    name, at, alias = text.partition("@")
    if at:
        return Reference(check_name(name), alias=check_alias(alias))
    name, slash, version = text.partition("/")
    if slash and not _VERSION.fullmatch(version):
        raise ZooError(f"Expected 'name', 'name/3' or 'name@alias' (got {text[:200]!r})")
    return Reference(check_name(name), version=int(version) if slash else None)
