"""Addresses in the pages of MLflow and optuna-dashboard, where these are known."""

from urllib.parse import quote, urlsplit

from nasgraph.errors import NasGraphError
from nasgraph.modelzoo.catalogue import Row
from nasgraph.web.context import WebContext


def base_of(address: str) -> str:
    """A configured address without a slash at its end; empty if it is none that a browser may be sent to."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return address.rstrip("/") if parts.scheme in ("http", "https") and parts.hostname else ""


def mlflow_links(context: WebContext, row: Row) -> tuple[tuple[str, str], ...]:
    """Words and addresses of MLflow's pages about a registered entry; none where MLflow's address is not known."""
    base = base_of(context.settings.mlflow_url)
    if not base or row.version is None:
        return ()
    links = [
        (
            "Version in MLflow's registry",
            f"{base}/#/models/{quote(row.name, safe='')}/versions/{row.version}",
        )
    ]
    runs = {"Run of these files": row.run_id}
    if row.card is not None and row.card.lineage.run_id not in ("", row.run_id):
        runs["Run of the trial"] = row.card.lineage.run_id
    for words, run_id in runs.items():
        if run_id:
            try:
                experiment = context.zoo.registry.experiment_of(run_id)
            except NasGraphError:
                continue  # a run that was deleted, or of another store, has no page there
            links.append(
                (words, f"{base}/#/experiments/{quote(experiment, safe='')}/runs/{quote(run_id, safe='')}")
            )
    return tuple(links)


def study_link(context: WebContext, number: int | None) -> str:
    """The page of a study in optuna-dashboard, by its number in its storage; the list of studies without one; empty without an
    address."""
    base = base_of(context.settings.dashboard_url)
    if not base:
        return ""
    return f"{base}/dashboard" if number is None else f"{base}/dashboard/studies/{number}"


def outside_links(context: WebContext, row: Row) -> tuple[tuple[str, str], ...]:
    """Words and addresses of all pages of other programs about an entry."""
    studies = study_link(context, None)
    is_searched = row.card is not None and bool(row.card.lineage.study)
    found = (("Studies in optuna-dashboard", studies),) if studies and is_searched else ()
    return (*mlflow_links(context, row), *found)
