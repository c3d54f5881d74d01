"""What a reader does, in a real Chromium: find, compare, open, look closely, watch; by mouse, by keyboard and on a phone.

Pictures of the pages are written to the folder that NASGRAPH_SCREENSHOTS names, to be looked at.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nasgraph.mlflow_client import default_tracking_uri
from nasgraph.web.context import WebContext, WebSettings
from tests.web.browser import (
    ACCESSIBILITY,
    CHROMIUM,
    CONTRAST,
    DESKTOP,
    FLAGS,
    PHONE,
    TOO_WIDE,
    Watched,
    serving,
    tab,
    until,
)
from tests.web.family import STUDY, FamilyZoo, make_family

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs Chromium at '{CHROMIUM}'"),
]

PAGES = (
    "/",
    "/scatter",
    "/compare?with=winner/1&with=mutant/1&with=merge/1",
    "/similar/winner/1",
    "/for-data",
    "/api",
    "/entry/winner/1",
    "/entry/mutant/1",
    "/entry/merge",
    "/entry/deep-transformer?open=0",
    "/entry/import",
    "/entry/ghn-digits",
    "/live",
    f"/live/{STUDY}",
)


@pytest.fixture(scope="module")
def family(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> FamilyZoo:
    folder = tmp_path_factory.mktemp("family")
    (folder / "runs").mkdir()
    shutil.copyfile(empty_store, folder / "runs" / "nasgraph.db")
    return make_family(default_tracking_uri(folder / "runs"), folder)


@pytest.fixture(scope="module")
def base(family: FamilyZoo) -> Iterator[str]:
    settings = WebSettings(workspace=family.workspace)
    with serving(WebContext(zoo=family.zoo, catalogue=family.zoo.catalogue, settings=settings)) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install 'nasgraph[e2e]'"
    )
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield opened
        opened.close()


def keep(page: "Page", name: str, *, full: bool = True) -> None:
    """Write a picture of a page, if somebody wants to look at it."""
    if folder := os.environ.get("NASGRAPH_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=full)


def names(page: "Page") -> list[str]:
    """Names of the models in the table, from above."""
    return page.locator("table.models tbody th a").all_inner_texts()


# ---- every page


@pytest.mark.parametrize("address", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_pages_are_readable_named_and_no_wider_than_the_window(
    browser: "Browser", base: str, address: str, scheme: str, size: tuple[int, int]
) -> None:
    with tab(browser, base, size=size, scheme=scheme) as watched:
        page = watched.go(address)
        name = re.sub(r"\W+", "-", address).strip("-") or "table"
        keep(page, f"{name}-{scheme}-{'phone' if size == PHONE else 'desktop'}")
        assert watched.script(TOO_WIDE) == []
        assert watched.script(ACCESSIBILITY) == []
        assert watched.script(CONTRAST) == []


def test_pages_work_without_scripts(browser: "Browser", base: str) -> None:
    with tab(browser, base, with_scripts=False) as watched:
        page = watched.page
        page.goto(f"{base}/entry/deep-transformer?open=none")
        assert page.locator("#view svg .ng-box").count() > 5
        assert not page.locator("[data-zoom=in]").is_visible()
        closed = page.locator("#view .ng-box").count()
        page.locator(".ng-part").first.click()
        page.wait_for_url(re.compile("open=0"))
        assert page.locator("#view .ng-box").count() > closed
        page.get_by_role("link", name="Load the lineage").click()
        assert page.locator("svg text", has_text="imported").is_visible()


# ---- the table


def test_the_table_is_filtered_sorted_and_gone_back_to(browser: "Browser", base: str) -> None:
    with tab(browser, base) as watched:
        page = watched.go("/")
        everything = names(page)
        page.get_by_label("Search", exact=True).fill("convnet")
        page.wait_for_url(re.compile("q=convnet"))
        until(page, "document.querySelectorAll('table.models tbody tr').length === 3")
        assert sorted(names(page)) == ["merge", "mutant", "winner"]
        page.locator("#sort-num_parameters").click()
        page.wait_for_url(re.compile("sort=num_parameters"))
        page.wait_for_selector("th[aria-sort]:has(#sort-num_parameters)")
        ascending = names(page)
        page.locator("#sort-num_parameters").click()
        page.wait_for_selector("th[aria-sort=descending] #sort-num_parameters")
        assert names(page)[0] != ascending[0] or names(page) == ascending
        page.go_back()
        page.wait_for_selector("th[aria-sort=ascending] #sort-num_parameters")
        page.go_back()
        page.go_back()
        until(page, f"document.querySelectorAll('table.models tbody tr').length === {len(everything)}")
        assert names(page) == everything
        assert "q=" not in page.url


def test_an_address_brings_the_table_back(browser: "Browser", base: str) -> None:
    with tab(browser, base) as watched:
        page = watched.go("/?q=convnet&sort=num_parameters")
        assert sorted(names(page)) == ["merge", "mutant", "winner"]
        assert page.get_by_label("Search", exact=True).input_value() == "convnet"


def test_three_models_are_ticked_and_compared(browser: "Browser", base: str) -> None:
    with tab(browser, base) as watched:
        page = watched.go("/")
        for name in ("mutant/1", "merge/1", "deep-transformer/1"):
            page.get_by_role("checkbox", name=f"Compare {name}").check()
        page.get_by_role("button", name="Compare the selected").click()
        page.wait_for_url(re.compile("/compare"))
        for name in ("mutant", "merge", "deep-transformer"):
            assert page.get_by_role("link", name=re.compile(name)).first.is_visible()


# ---- the drawing


def view_box(watched: Watched) -> list[float]:
    return [
        float(x)
        for x in str(watched.script("document.querySelector('#view svg').getAttribute('viewBox')")).split()
    ]


def test_the_drawing_zooms_by_buttons_wheel_and_keys(browser: "Browser", base: str) -> None:
    with tab(browser, base) as watched:
        page = watched.go("/entry/deep-transformer?detail=chains&open=0")
        start = view_box(watched)
        page.get_by_role("button", name="Zoom in").click()
        closer = view_box(watched)
        assert closer[2] < start[2]
        page.get_by_role("button", name="Fit").click()
        whole = view_box(watched)
        size = watched.script(
            "(() => { const v = document.getElementById('view').dataset; return [Number(v.width), Number(v.height)] })()"
        )
        assert whole[2] >= size[0] - 1
        assert whole[3] >= size[1] - 1
        page.locator("#view").scroll_into_view_if_needed()
        page.locator("#view").hover()
        before = page.evaluate("scrollY")
        page.mouse.wheel(0, -100)  # without Ctrl the page scrolls
        page.wait_for_timeout(150)
        assert view_box(watched) == whole
        page.keyboard.down("Control")
        page.mouse.wheel(0, -300)
        page.keyboard.up("Control")
        page.wait_for_timeout(150)
        assert view_box(watched)[2] < whole[2]
        assert page.evaluate("scrollY") <= before
        page.locator("#view").focus()
        page.keyboard.press("0")
        assert view_box(watched) == whole
        page.keyboard.press("+")
        page.keyboard.press("+")
        near = view_box(watched)
        page.keyboard.press("ArrowDown")
        assert view_box(watched)[1] > near[1]


def test_the_drawing_is_dragged_and_a_drag_is_no_click(browser: "Browser", base: str) -> None:
    with tab(browser, base) as watched:
        page = watched.go("/entry/winner/1")
        page.get_by_role("button", name="100 %").click()
        page.locator("#view").scroll_into_view_if_needed()
        frame = page.locator("#view").bounding_box()
        assert frame is not None
        found = page.locator("#view .ng-box[role=button]").all()
        places = [place for box in found if (place := box.bounding_box())]
        middle = frame["y"] + frame["height"] / 2
        place = min(places, key=lambda place: abs(place["y"] - middle))
        start = view_box(watched)
        page.mouse.move(place["x"] + 20, place["y"] + 10)
        page.mouse.down()
        page.mouse.move(place["x"] + 60, place["y"] - 70, steps=6)
        page.mouse.up()
        moved = view_box(watched)
        assert moved[1] == pytest.approx(start[1] + 80, abs=1)
        page.wait_for_timeout(200)
        assert page.locator(".is-selected").count() == 0
        page.mouse.click(place["x"] + 60, place["y"] - 70)
        until(page, "document.querySelectorAll('.is-selected').length === 1")


def test_blocks_open_and_close_in_place(browser: "Browser", base: str) -> None:
    with tab(browser, base) as watched:
        page = watched.go("/entry/deep-transformer?detail=chains&open=none")
        closed = page.locator("#view .ng-box[role=button]").count()
        part = page.locator(".ng-part")
        place = part.bounding_box()
        assert place is not None
        part.click()
        page.wait_for_selector(".ng-part[aria-expanded=true]")
        assert page.locator("#view .ng-box[role=button]").count() > closed
        assert "open=0" in page.url
        moved = page.locator(".ng-part").bounding_box()
        assert moved is not None
        assert abs(moved["x"] - place["x"]) < 40
        assert abs(moved["y"] - place["y"]) < 40
        assert page.evaluate("document.activeElement.dataset.part") == "0"
        keep(page, "blocks-open", full=False)
        page.keyboard.press("Space")
        page.wait_for_selector(".ng-part[aria-expanded=false]")
        page.get_by_role("link", name="Operators").click()
        page.wait_for_selector(".segments a[aria-current]:has-text('Operators')")
        page.reload()
        assert page.locator(".segments a[aria-current]").inner_text() == "Operators"


def test_operators_are_told_to_those_who_use_the_keyboard(browser: "Browser", base: str) -> None:
    with tab(browser, base) as watched:
        page = watched.go("/entry/winner/1")
        page.locator("#view").focus()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("input")
        page.keyboard.press("ArrowDown")
        label = page.evaluate("document.activeElement.getAttribute('aria-label')")
        assert label.startswith("conv")
        panel = page.locator("#panel")
        until(page, "document.querySelector('#panel dt')?.textContent === 'Operator'")
        assert panel.get_attribute("aria-live") == "polite"
        assert "kernel_size" in panel.inner_text()
        assert "Multiply-adds" in panel.inner_text()
        page.keyboard.press("End")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("linear")
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.id") == "view"
        keep(page, "operator", full=False)


def test_an_operator_is_searched_for(browser: "Browser", base: str) -> None:
    with tab(browser, base) as watched:
        page = watched.go("/entry/deep-transformer?detail=chains&open=none")
        page.get_by_label("Find an operator").fill("attention")
        assert page.locator("#found").inner_text() == "1 box"
        assert page.locator(".ng-box.is-found").count() == 1
        keep(page, "found", full=False)
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("attention")
        page.get_by_role("button", name="Take the marks away").click()
        assert page.locator(".ng-box.is-found").count() == 0


def test_what_differs_from_the_parent_is_shown_in_the_drawing(browser: "Browser", base: str) -> None:
    with tab(browser, base) as watched:
        page = watched.go("/entry/mutant/1")
        page.get_by_role("button", name="Show in the drawing").click()
        assert (
            page.locator(".ng-box.is-added, .ng-box.is-changed").count() > 0
            or "removed" in page.locator("#lineage").inner_text()
        )
        assert "marked" in page.locator("#marks").inner_text()
        keep(page, "difference")


def test_what_similar_architectures_have_in_common_is_shown(browser: "Browser", base: str) -> None:
    with tab(browser, base) as watched:
        page = watched.go("/entry/winner/1")
        buttons = page.get_by_role("button", name=re.compile("Show what it has in common"))
        assert buttons.count() > 0, "an encoder of architectures is shipped"
        buttons.first.click()
        page.wait_for_selector("[data-mark-common]")
        page.wait_for_selector(".ng-box.is-common")
        keep(page, "common")


def test_text_of_a_card_is_never_run(browser: "Browser", base: str) -> None:
    with tab(browser, base) as watched:
        page = watched.go("/entry/merge")
        page.on("dialog", lambda dialog: watched.troubles.append(f"dialog: {dialog.message}"))
        assert page.get_by_text('<script>alert("card")</script>').count() > 0


def test_two_fingers_zoom_on_a_phone(browser: "Browser", base: str) -> None:
    with tab(browser, base, size=PHONE) as watched:
        page = watched.go("/entry/winner/1")
        page.locator("#view").scroll_into_view_if_needed()
        start = view_box(watched)
        place = page.locator("#view").bounding_box()
        assert place is not None
        x, y = place["x"] + place["width"] / 2, place["y"] + 150
        session = page.context.new_cdp_session(page)

        def touch(kind: str, *points: tuple[float, float]) -> None:
            session.send(
                "Input.dispatchTouchEvent",
                {"type": kind, "touchPoints": [{"x": a, "y": b, "id": n} for n, (a, b) in enumerate(points)]},
            )

        touch("touchStart", (x - 20, y), (x + 20, y))
        for step in range(1, 8):
            touch("touchMove", (x - 20 - 10 * step, y), (x + 20 + 10 * step, y))
        touch("touchEnd")
        assert view_box(watched)[2] < start[2] / 1.5
        keep(page, "pinched", full=False)


# ---- the rest


def test_colours_are_chosen_and_remembered(browser: "Browser", base: str) -> None:
    with tab(browser, base) as watched:
        page = watched.go("/entry/winner/1")
        ground = "getComputedStyle(document.body).backgroundColor"
        fill = "getComputedStyle(document.querySelector('.ng-conv')).fill"
        light = watched.script(ground), watched.script(fill)
        button = page.locator("#theme")
        while "dark" not in button.inner_text():
            button.click()
        dark = watched.script(ground), watched.script(fill)
        assert light[0] != dark[0]
        assert light[1] != dark[1]
        page.reload()
        assert (watched.script(ground), watched.script(fill)) == dark


def test_a_command_is_copied(browser: "Browser", base: str) -> None:
    with tab(browser, base) as watched:
        page = watched.go("/entry/winner/1")
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="Copy: nasgraph zoo show winner/1").click()
        until(page, "document.getElementById('copied').textContent.startsWith('Copied')")
        assert page.evaluate("navigator.clipboard.readText()") == "nasgraph zoo show winner/1"


def test_a_search_is_watched_paused_and_gone_on_with(
    browser: "Browser", base: str, family: FamilyZoo
) -> None:
    import signal

    from tests.search.processes import fork
    from tests.web.test_live import run

    pid = fork(lambda: run(family.workspace, study="running", trials=500, wanted=500, seconds=0.4))
    try:
        with tab(browser, base) as watched:
            page = watched.page
            page.goto(f"{base}/live")
            for _ in range(100):
                if page.get_by_role("link", name="running").count():
                    break
                page.wait_for_timeout(200)
                page.reload()
            page.get_by_role("link", name="running").click()
            done = "Number(document.querySelector('#state > div').dataset.done)"
            until(page, f"{done} > 2", seconds=60)
            first = watched.script(done)
            until(page, f"{done} > {first}", seconds=60)
            keep(page, "live-running")
            button = page.get_by_role("button", name="Pause")
            button.click()
            page.wait_for_timeout(2500)
            paused = watched.script(done)
            page.wait_for_timeout(2500)
            assert watched.script(done) == paused
            page.get_by_role("button", name="Go on").click()
            until(page, f"{done} > {paused}", seconds=60)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
