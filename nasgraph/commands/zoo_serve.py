"""`nasgraph zoo serve`: the web page of the zoo."""

from pathlib import Path
from typing import Annotated

import typer

from nasgraph.commands.options import DataDirOption, TrackingUriOption


def serve(
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on. There is no login: others can read what they reach.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0: any that is free.")] = 8470,
    workspace: Annotated[
        Path, typer.Option("--workspace", metavar="FOLDER", help="Folder with searches, for the live view.")
    ] = Path("nasgraph-runs"),
    mlflow_url: Annotated[
        str, typer.Option("--mlflow-url", help="Where 'mlflow ui' runs, for links into it.", show_default="of --tracking-uri, if http")
    ] = "",
    dashboard_url: Annotated[str, typer.Option("--dashboard-url", help="Where optuna-dashboard runs, for links into it.")] = "",
    allow_paths: Annotated[
        bool, typer.Option("--allow-paths", help="Let visitors name data on this machine by its path.")
    ] = False,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = False,
    data_dir: DataDirOption = None,
    tracking_uri: TrackingUriOption = None,
) -> None:  # fmt: skip
    """Serve the zoo as a web page on this machine, until Ctrl-C."""
    from nasgraph.commands.output import Output
    from nasgraph.web.context import WebSettings
    from nasgraph.web.server import ServeConfig
    from nasgraph.web.server import serve as serve_page

    output = Output()
    if not mlflow_url and (tracking_uri or "").startswith(("http://", "https://")):
        mlflow_url = tracking_uri or ""
    settings = WebSettings(
        workspace=workspace,
        mlflow_url=mlflow_url,
        dashboard_url=dashboard_url,
        data_dir=data_dir,
        allow_server_paths=allow_paths,
    )
    config = ServeConfig(host=host, port=port, open_browser=browser, settings=settings)
    serve_page(
        tracking_uri,
        config,
        on_start=lambda address: output.message(f"The zoo is at {address} (Ctrl-C ends)"),
    )
