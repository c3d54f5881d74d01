"""The web page of the zoo: browse, compare and ask it in a browser on this machine, without anything from the network."""

from nasgraph.web.context import BadRequestError, WebContext, WebSettings

__all__ = ["BadRequestError", "WebContext", "WebSettings"]
