"""Pictures of computational graphs, by the standard library alone."""

from nasgraph.draw.svg import draw_svg, picture_of

__all__ = ["draw_svg", "picture_of"]
