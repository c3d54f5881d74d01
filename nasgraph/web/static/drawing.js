// The drawing of an architecture: zoom, pan, parts that open and close, boxes that are reached and asked about, marks.
"use strict";
(() => {
  const MIN_SCALE = 0.04, MAX_SCALE = 4, LEGIBLE = 0.62, READABLE = 0.72, STEP = 1.25, PAN = 60, STILL = 5;
  const byId = (id) => document.getElementById(id);
  document.documentElement.classList.add("has-script");

  let view, svg, width, height;
  let x = 0, y = 0, scale = 1;
  let marks = null; // kind -> set of nodes
  let askTimer = 0, asked = "";

  const boxes = () => [...svg.querySelectorAll('.ng-box[role="button"]')];
  const nodesOf = (box) => box.dataset.node.split(" ");
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const fitScale = () => clamp(Math.min(view.clientWidth / width, view.clientHeight / height), MIN_SCALE, 1);

  const show = () => {
    const w = view.clientWidth / scale, h = view.clientHeight / scale;
    x = w >= width ? (width - w) / 2 : clamp(x, -w * 0.3, width - w * 0.7); // a part of the drawing always stays in view
    y = h >= height ? Math.min(0, (height - h) / 2) : clamp(y, -h * 0.3, height - h * 0.7);
    svg.setAttribute("viewBox", `${x} ${y} ${w} ${h}`);
    view.classList.toggle("is-zoomed", scale > fitScale() * 1.02);
    byId("scale").textContent = `${Math.round(scale * 100)} %`;
  };
  const zoom = (factor, clientX, clientY) => {
    const frame = view.getBoundingClientRect();
    const dx = (clientX ?? frame.left + frame.width / 2) - frame.left;
    const dy = (clientY ?? frame.top + frame.height / 2) - frame.top;
    const next = clamp(scale * factor, Math.min(MIN_SCALE, fitScale()), MAX_SCALE);
    x += dx / scale - dx / next;
    y += dy / scale - dy / next;
    scale = next;
    show();
  };
  const fit = () => {
    scale = fitScale();
    x = y = 0;
    show();
  };
  const begin = () => {
    const whole = fitScale();
    scale = whole >= LEGIBLE ? whole : READABLE;
    x = y = 0;
    show();
    if (scale > whole * 1.02) {
      x = centreOf(boxes()[0]).x - view.clientWidth / scale / 2;
      show();
    }
  };
  const centreOf = (element) => {
    const own = element.getBoundingClientRect(), frame = view.getBoundingClientRect();
    const now = svg.viewBox.baseVal;
    const ratio = Math.min(frame.width / now.width, frame.height / now.height);
    const shift = (frame.width - now.width * ratio) / 2;
    return {
      x: now.x + (own.left + own.width / 2 - frame.left - shift) / ratio,
      y: now.y + (own.top + own.height / 2 - frame.top) / ratio,
    };
  };
  const reveal = (element) => {
    const place = centreOf(element), w = view.clientWidth / scale, h = view.clientHeight / scale;
    const left = Math.min(w / 2, 130), top = Math.min(h / 2, 70); // half a box and some room
    x = clamp(x, place.x + left - w, place.x - left);
    y = clamp(y, place.y + top - h, Math.max(0, place.y - top));
    show();
  };

  // ---- boxes

  const reach = (box) => {
    for (const other of svg.querySelectorAll('.ng-box[tabindex="0"]')) other.setAttribute("tabindex", "-1");
    box.setAttribute("tabindex", "0");
  };
  const ask = (box, delay) => {
    const nodes = nodesOf(box).slice(0, 100).join(",");
    for (const other of svg.querySelectorAll(".is-selected")) {
      other.classList.remove("is-selected");
      other.removeAttribute("aria-pressed");
    }
    box.classList.add("is-selected");
    box.setAttribute("aria-pressed", "true");
    reach(box);
    clearTimeout(askTimer);
    if (nodes === asked) return;
    askTimer = setTimeout(() => {
      asked = nodes;
      const source = byId("stage").dataset.details;
      htmx.ajax("GET", `${source}?nodes=${nodes}`, { target: "#panel", swap: "innerHTML" });
    }, delay);
  };
  const move = (box, step) => {
    const all = boxes();
    const next = all[clamp(step === "first" ? 0 : step === "last" ? all.length - 1 : all.indexOf(box) + step, 0, all.length - 1)];
    reach(next);
    reveal(next);
    next.focus({ preventScroll: true });
  };

  // ---- marks: what was found, what is common, what differs

  const WORDS = { found: "found", common: "common to both", added: "added", changed: "changed" };
  const LOOKS = {
    found: "Blue outline: found",
    common: "Blue outline: common to both",
    added: "Thick green outline: added",
    changed: "Dashed red outline: changed",
  };
  const mark = (wanted) => {
    marks = wanted;
    const kinds = Object.keys(WORDS);
    let count = 0, first = null;
    for (const box of boxes()) {
      box.classList.remove("is-marked", ...kinds.map((kind) => `is-${kind}`));
      box.removeAttribute("aria-description");
      const own = marks === null ? [] : kinds.filter((kind) => marks[kind] && nodesOf(box).some((node) => marks[kind].has(node)));
      if (own.length) {
        box.classList.add("is-marked", ...own.map((kind) => `is-${kind}`));
        box.setAttribute("aria-description", own.map((kind) => WORDS[kind]).join(", "));
        count += 1;
        first = first ?? box;
      }
    }
    view.classList.toggle("has-marks", count > 0);
    const shown = marks === null ? [] : kinds.filter((kind) => marks[kind]?.size);
    byId("unmark").hidden = marks === null;
    byId("marks").hidden = marks === null;
    byId("marks").textContent = marks === null ? "" : `${count === 1 ? "1 box is" : `${count} boxes are`} marked. ${shown.map((kind) => LOOKS[kind]).join(". ")}.`;
    return first;
  };
  const setOf = (text) => new Set((text ?? "").split(" ").filter(Boolean));
  const markFrom = (element) => {
    const wanted = {};
    for (const kind of ["common", "added", "changed"]) {
      const text = element.dataset[`mark${kind[0].toUpperCase()}${kind.slice(1)}`];
      if (text !== undefined) wanted[kind] = setOf(text);
    }
    byId("find").value = "";
    byId("found").textContent = "";
    return mark(wanted);
  };
  const find = (text) => {
    const wanted = text.trim().toLowerCase();
    if (!wanted) {
      byId("found").textContent = "";
      mark(null);
      return null;
    }
    const nodes = new Set();
    for (const box of boxes()) {
      const says = `${box.getAttribute("aria-label")}\n${box.querySelector("title").textContent}`.toLowerCase();
      const isNumber = /^\d+$/.test(wanted);
      if (isNumber ? nodesOf(box).includes(wanted) : says.includes(wanted)) for (const node of nodesOf(box)) nodes.add(node);
    }
    const first = mark({ found: nodes });
    const count = boxes().filter((box) => box.classList.contains("is-found")).length;
    byId("found").textContent = count === 1 ? "1 box" : `${count} boxes`;
    byId("marks").hidden = true;
    return first;
  };

  // ---- another picture: parts opened or closed, another detail

  const redraw = async (link) => {
    const part = link.dataset.part, url = new URL(link.getAttribute("href"), location.href);
    const before = part === undefined ? null : link.getBoundingClientRect();
    const old = scale;
    await htmx.ajax("GET", `${byId("stage").dataset.source}${url.search}`, { target: "#stage", swap: "outerHTML" });
    history.replaceState(history.state, "", url);
    start();
    if (part === undefined) {
      svg.ownerDocument.querySelector(".segments [aria-current]")?.focus({ preventScroll: true });
      return;
    }
    const badge = svg.querySelector(`[data-part="${part}"]`);
    if (badge === null) return;
    scale = old;
    show();
    const now = badge.getBoundingClientRect();
    x += (now.left - before.left) / scale;
    y += (now.top - before.top) / scale;
    show();
    badge.focus({ preventScroll: true });
  };

  // ---- pointers: one drags, two pinch

  const pointers = new Map();
  let moved = 0;
  const spread = () => {
    const [a, b] = [...pointers.values()];
    return { length: Math.hypot(a.x - b.x, a.y - b.y), x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
  };
  const onDown = (event) => {
    if (event.button !== 0) return;
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (pointers.size === 1) moved = 0;
  };
  const onMove = (event) => {
    const last = pointers.get(event.pointerId);
    if (last === undefined) return;
    const dx = event.clientX - last.x, dy = event.clientY - last.y;
    if (pointers.size === 2) {
      const before = spread();
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      const after = spread();
      x -= (after.x - before.x) / scale;
      y -= (after.y - before.y) / scale;
      if (before.length > 0) zoom(after.length / before.length, after.x, after.y);
      moved = STILL + 1;
      return;
    }
    moved += Math.hypot(dx, dy);
    if (moved > STILL && pointers.size === 1) {
      if (!view.hasPointerCapture(event.pointerId)) view.setPointerCapture(event.pointerId);
      view.classList.add("is-dragged");
      x -= dx / scale;
      y -= dy / scale;
      show();
    }
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  };
  const onUp = (event) => {
    pointers.delete(event.pointerId);
    if (pointers.size === 0) view.classList.remove("is-dragged");
  };
  const onWheel = (event) => {
    if (!event.ctrlKey && !event.metaKey && !view.contains(document.activeElement)) return;
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    zoom(Math.exp(clamp(-event.deltaY * lines, -240, 240) * 0.0022), event.clientX, event.clientY);
  };
  const onClick = (event) => {
    if (moved > STILL) {
      event.preventDefault(); // that was a drag
      event.stopPropagation();
      return;
    }
    const part = event.target.closest(".ng-part");
    if (part !== null) {
      event.preventDefault();
      redraw(part);
      return;
    }
    const box = event.target.closest('.ng-box[role="button"]');
    if (box !== null) ask(box, 0);
  };
  const onFocus = (event) => {
    const box = event.target.closest?.('.ng-box[role="button"]');
    if (!box || pointers.size) return;
    reveal(box);
    ask(box, 160); // a reader who walks through many boxes does not want the details of each
  };
  const onKey = (event) => {
    const box = event.target.closest?.('.ng-box[role="button"]');
    const keys = { "+": () => zoom(STEP), "=": () => zoom(STEP), "-": () => zoom(1 / STEP), 0: fit, Escape: () => view.focus() };
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (arrows[event.key] && box && !event.shiftKey) move(box, arrows[event.key][0] + arrows[event.key][1]);
    else if (arrows[event.key]) {
      x += (arrows[event.key][0] * PAN) / scale;
      y += (arrows[event.key][1] * PAN) / scale;
      show();
    } else if (box && event.key === "Home") move(box, "first");
    else if (box && event.key === "End") move(box, "last");
    else if (box && (event.key === "Enter" || event.key === " ")) ask(box, 0);
    else if (event.key === " " && event.target.closest?.(".ng-part")) redraw(event.target.closest(".ng-part"));
    else if (keys[event.key]) keys[event.key]();
    else return;
    event.preventDefault();
  };

  const start = () => {
    view = byId("view");
    if (view === null) return false;
    svg = view.querySelector("svg");
    width = Number(view.dataset.width);
    height = Number(view.dataset.height);
    svg.setAttribute("preserveAspectRatio", "xMidYMin meet");
    pointers.clear();
    asked = "";
    view.addEventListener("pointerdown", onDown);
    view.addEventListener("pointermove", onMove);
    view.addEventListener("pointerup", onUp);
    view.addEventListener("pointercancel", onUp);
    view.addEventListener("wheel", onWheel, { passive: false });
    view.addEventListener("click", onClick);
    view.addEventListener("focusin", onFocus);
    view.addEventListener("keydown", onKey);
    begin();
    if (marks !== null) mark(marks);
    return true;
  };

  document.addEventListener("DOMContentLoaded", () => {
    if (!start()) return;
    document.addEventListener("click", (event) => {
      const tool = event.target.closest("[data-zoom]");
      if (tool !== null) ({ in: () => zoom(STEP), out: () => zoom(1 / STEP), fit, full: () => zoom(1 / scale) })[tool.dataset.zoom]();
      const link = event.target.closest("a[data-redraw]");
      if (link !== null && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
        event.preventDefault();
        redraw(link);
      }
      const marker = event.target.closest("button[data-mark-changed]");
      if (marker !== null) {
        const first = markFrom(marker);
        byId("drawing").scrollIntoView();
        if (first !== null) reveal(first);
      }
    });
    byId("unmark").addEventListener("click", () => {
      byId("find").value = "";
      byId("found").textContent = "";
      mark(null);
      view.focus({ preventScroll: true });
    });
    byId("find").addEventListener("input", (event) => {
      const first = find(event.target.value);
      if (first !== null) reveal(first);
    });
    byId("find").addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      const first = find(event.target.value);
      if (first !== null) {
        reach(first);
        reveal(first);
        first.focus({ preventScroll: true });
      }
    });
    document.addEventListener("htmx:afterSwap", (event) => {
      const asks = event.detail.target?.querySelector?.("[data-mark-now]");
      if (asks) {
        const first = markFrom(asks);
        if (first !== null) reveal(first);
      }
    });
    new ResizeObserver(() => {
      if (view.isConnected && view.clientWidth > 0) show();
    }).observe(byId("drawing"));
  });
})();
