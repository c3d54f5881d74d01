"""A real browser against a real server, and checks of what every page owes its readers."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from nasgraph.web.app import make_app
from nasgraph.web.context import WebContext
from nasgraph.web.security import guard_rules

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP, PHONE = (1280, 900), (390, 844)


@contextmanager
def serving(context: WebContext) -> Iterator[str]:
    """Serve the pages on a free port of this machine for the time of a `with` block."""
    rules = guard_rules("127.0.0.1", token=context.token, max_body_bytes=2**20)
    config = uvicorn.Config(make_app(context, rules=rules), host="127.0.0.1", port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


@dataclass(slots=True)
class Watched:
    """A tab, and what went wrong in it.

    Attributes:
        page: The tab.
        base: Address of the server.
        troubles: Errors on the console, exceptions, failed answers, requests to anything but the server.
    """

    page: "Page"
    base: str
    troubles: list[str] = field(default_factory=list)

    def go(self, address: str) -> "Page":
        """Open an address of the server, and wait until its later parts are there."""
        self.page.goto(self.base + address)
        self.page.wait_for_load_state("networkidle")
        return self.page

    def script(self, code: str) -> Any:
        """The value of an expression in the page."""
        return self.page.evaluate(code)


@contextmanager
def tab(
    browser: "Browser",
    base: str,
    *,
    size: tuple[int, int] = DESKTOP,
    scheme: str = "light",
    with_scripts: bool = True,
) -> Iterator[Watched]:
    """A new tab of a new profile, whose troubles fail the test at the end."""
    is_phone = size == PHONE
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if scheme == "dark" else "light",
        has_touch=is_phone,
        is_mobile=is_phone,
        java_script_enabled=with_scripts,
        reduced_motion="reduce",
    )
    context.set_default_timeout(20_000)
    watched = Watched(context.new_page(), base)
    page, troubles = watched.page, watched.troubles
    page.on(
        "console", lambda m: troubles.append(f"console: {m.text}") if m.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: troubles.append(f"exception: {error}"))
    page.on(
        "request",
        lambda r: None if r.url.startswith((base, "data:", "blob:")) else troubles.append(f"asked {r.url}"),
    )
    page.on("response", lambda r: troubles.append(f"{r.status} of {r.url}") if r.status >= 400 else None)
    try:
        yield watched
        assert not troubles, troubles
    finally:
        context.close()


def until(page: "Page", condition: str, *, seconds: float = 20.0) -> None:
    """Wait until an expression is true in the page, whose policy forbids what Playwright's own waiting would do there."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"it never came true: {condition}"
        page.wait_for_timeout(50)


ACCESSIBILITY = """() => {
  const faults = [];
  const seen = (e) => e.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  const name = (e) => (e.getAttribute("aria-label") || (e.getAttribute("aria-labelledby") || "").split(" ").filter(Boolean)
    .map((id) => document.getElementById(id)?.textContent ?? "").join(" ") || [...(e.labels ?? [])].map((l) => l.textContent).join(" ")
    || e.textContent || e.querySelector?.("img[alt]")?.alt || e.title || "").trim();
  const short = (e) => e.outerHTML.slice(0, 110);
  for (const e of document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary, [role=button], [role=group], [role=region], nav, svg[role]"))
    if (seen(e) && !name(e)) faults.push(`no name: ${short(e)}`);
  for (const e of document.querySelectorAll("img")) if (!e.hasAttribute("alt")) faults.push(`no alt: ${short(e)}`);
  for (const e of document.querySelectorAll("svg:not([role]):not([aria-hidden])")) faults.push(`picture without a role: ${short(e)}`);
  for (const e of document.querySelectorAll("table")) if (!e.caption && !e.getAttribute("aria-label")) faults.push(`table without a caption: ${short(e)}`);
  let before = 0;
  for (const e of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    const level = Number(e.tagName[1]);
    if (level > before + 1) faults.push(`heading of level ${level} after ${before}: ${short(e)}`);
    before = level;
  }
  if (document.querySelectorAll("h1").length !== 1) faults.push("not one h1");
  if (document.querySelectorAll("main").length !== 1) faults.push("not one main");
  if (!document.documentElement.lang) faults.push("no language");
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of new Set(ids.filter((id, n) => ids.indexOf(id) !== n))) faults.push(`id twice: ${id}`);
  for (const e of document.querySelectorAll("[aria-describedby], [aria-labelledby], [aria-controls]"))
    for (const at of ["aria-describedby", "aria-labelledby", "aria-controls"])
      for (const id of (e.getAttribute(at) ?? "").split(" ").filter(Boolean)) if (!document.getElementById(id)) faults.push(`${at} to nowhere: ${id}`);
  return faults;
}"""

CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (text) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => { const c = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] > 250) return c; } return [255, 255, 255, 255]; };
  const faults = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || e.closest("script, style, svg, [disabled], .hidden, .skip") || !e.checkVisibility()) continue;
    const style = getComputedStyle(e), size = parseFloat(style.fontSize);
    const [a, b] = [light(rgba(style.color)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const wanted = size >= 24 || (size >= 18.6 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if (ratio < wanted) faults.add(`${ratio.toFixed(2)} to 1: ${walk.currentNode.textContent.trim().slice(0, 40)} (${style.color})`);
  }
  for (const text of document.querySelectorAll("svg .ng-text, svg .ng-muted")) {
    const box = text.closest("g")?.querySelector("rect"), fill = box ? getComputedStyle(box).fill : "";
    if (!text.textContent.trim() || !fill.startsWith("rgb(") || text.closest(".has-marks")) continue;
    const [a, b] = [light(rgba(getComputedStyle(text).fill)), light(rgba(fill))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faults.add(`${ratio.toFixed(2)} to 1 in a picture: ${text.textContent}`);
  }
  return [...faults];
}"""

TOO_WIDE = """() => document.documentElement.scrollWidth > innerWidth ? [...document.querySelectorAll("body *")]
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll, .picture, pre, svg, nav"))
  .slice(0, 5).map((e) => e.outerHTML.slice(0, 120)) : []"""
