// The chart of accuracy against cost, on a canvas: ten thousand points are drawn within a frame, pointing at one touches no other.
"use strict";
(() => {
  const box = document.getElementById("chart");
  if (!box) return;
  const canvas = document.getElementById("points");
  const over = document.getElementById("pointer");
  const tip = document.getElementById("tip");
  const said = document.getElementById("said");
  const whole = document.getElementById("whole");
  const isLog = { x: box.dataset.scale === "log", y: box.dataset.y === "error" };
  const MARGIN = { left: 64, right: 16, top: 14, bottom: 46 };
  const REACH = 16; // pixels around the pointer in which a point is found
  const CELL = 24; // side of the squares in which points are looked up
  const GROUPS = 6;

  let data = null; // as /api/points sends it, with `y` and `colour` added
  let view = null; // range of both axes, in the units of the axes (logarithms on a log axis)
  let full = null; // the view that shows everything
  let screen = null; // places in pixels, and the squares they lie in
  let current = -1; // the point with the tip
  let drag = null;
  let colours = null;

  const toAxis = (value, log) => (log ? Math.log10(value) : value);
  const size = () => ({ width: box.clientWidth, height: box.clientHeight });

  function palette() {
    const style = getComputedStyle(document.documentElement);
    const dark =
      document.documentElement.dataset.theme === "dark" ||
      (document.documentElement.dataset.theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
    const pick = (light, other) => (dark ? other : light);
    return {
      text: pick("#17202e", "#e8edf4"),
      muted: pick("#56616f", "#a2afbf"),
      line: pick("#e3e8ef", "#222d3b"),
      best: pick("#17202e", "#ffffff"),
      ground: pick("#ffffff", "#0f151e"),
      font: style.getPropertyValue("--sans") || "sans-serif",
      groups: [
        pick("#2f6fde", "#6ea3ff"),
        pick("#c2570c", "#ff9a66"),
        pick("#0f8a80", "#3cc9bb"),
        pick("#7a4fe0", "#a98bff"),
        pick("#d0317f", "#f472b6"),
        pick("#8a6d00", "#eab54a"),
        pick("#64748b", "#94a3b8"),
      ],
    };
  }

  function groupsOf(values) {
    const counts = new Map();
    for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
    const names = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
    const shown = names.slice(0, names.length > GROUPS ? GROUPS : undefined);
    const place = new Map(shown.map(([name], index) => [name, index]));
    const legend = shown.map(([name, count], index) => [index, `${name || "none"} (${count})`]);
    const rest = names.slice(shown.length).reduce((sum, [, count]) => sum + count, 0);
    if (rest) legend.push([GROUPS, `${names.length - shown.length} others (${rest})`]);
    return { colour: Uint8Array.from(values, (value) => place.get(value) ?? GROUPS), legend };
  }

  function showLegend(legend) {
    const list = document.getElementById("legend");
    const NS = "http://www.w3.org/2000/svg";
    list.replaceChildren(
      ...legend.map(([index, words]) => {
        const item = document.createElement("li");
        const svg = document.createElementNS(NS, "svg");
        svg.setAttribute("viewBox", "0 0 12 12");
        svg.setAttribute("aria-hidden", "true");
        const dot = document.createElementNS(NS, "circle");
        for (const [name, value] of [["cx", 6], ["cy", 6], ["r", 5]]) dot.setAttribute(name, value);
        dot.setAttribute("class", `c${index}`);
        svg.append(dot);
        item.append(svg, words);
        return item;
      }),
    );
  }

  function range(values, log) {
    let low = Infinity;
    let high = -Infinity;
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    const pad = (high - low) * 0.04 || (log ? 0.3 : Math.abs(high) * 0.05 || 1);
    return [low - pad, high + pad];
  }

  function place() {
    const { width, height } = size();
    const count = data.ax.length;
    const px = new Float32Array(count);
    const py = new Float32Array(count);
    const cells = new Map();
    const w = width - MARGIN.left - MARGIN.right;
    const h = height - MARGIN.top - MARGIN.bottom;
    for (let i = 0; i < count; i++) {
      px[i] = MARGIN.left + ((data.ax[i] - view.x[0]) / (view.x[1] - view.x[0])) * w;
      py[i] = MARGIN.top + (1 - (data.ay[i] - view.y[0]) / (view.y[1] - view.y[0])) * h;
      if (px[i] < MARGIN.left - 1 || px[i] > width - MARGIN.right + 1 || py[i] < MARGIN.top - 1 || py[i] > height - MARGIN.bottom + 1) continue;
      const key = Math.floor(px[i] / CELL) * 10000 + Math.floor(py[i] / CELL);
      if (!cells.has(key)) cells.set(key, []);
      cells.get(key).push(i);
    }
    screen = { px, py, cells, width, height };
  }

  function nearest(x, y) {
    let best = -1;
    let distance = REACH * REACH;
    const [cx, cy] = [Math.floor(x / CELL), Math.floor(y / CELL)];
    for (let i = cx - 1; i <= cx + 1; i++)
      for (let j = cy - 1; j <= cy + 1; j++)
        for (const point of screen.cells.get(i * 10000 + j) ?? []) {
          const d = (screen.px[point] - x) ** 2 + (screen.py[point] - y) ** 2;
          if (d < distance || (d === distance && point < best)) [best, distance] = [point, d];
        }
    return best;
  }

  function ticks(ends, log, wanted) {
    const [low, high] = [Math.min(...ends), Math.max(...ends)];
    if (log && high - low > 1) {
      const steps = high - low > 5 ? [1] : high - low > 2.5 ? [1, 3] : [1, 2, 5];
      const found = [];
      for (let power = Math.floor(low); power <= Math.ceil(high); power++)
        for (const step of steps) {
          const value = power + Math.log10(step);
          if (value >= low && value <= high) found.push([value, 10 ** power * step]);
        }
      return found;
    }
    const [a, b] = log ? [10 ** low, 10 ** high] : [low, high];
    const raw = (b - a) / wanted;
    const unit = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].find((factor) => factor * unit >= raw) * unit;
    const found = [];
    for (let n = Math.ceil(a / step); n * step <= b; n++) found.push([log ? Math.log10(n * step) : n * step, n * step]);
    return found.filter(([value]) => Number.isFinite(value));
  }

  function short(value) {
    for (const [limit, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
      if (value >= limit) return `${Number((value / limit).toPrecision(3))} ${unit}`;
    return String(Number(value.toPrecision(3)));
  }
  const share = (value) => `${Number((100 * value).toPrecision(4))} %`;

  function context(target) {
    const { width, height } = size();
    const ratio = window.devicePixelRatio || 1;
    if (target.width !== Math.round(width * ratio) || target.height !== Math.round(height * ratio)) {
      target.width = Math.round(width * ratio);
      target.height = Math.round(height * ratio);
    }
    const pen = target.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    return pen;
  }

  function axes(pen) {
    const { width, height } = screen;
    const [right, bottom] = [width - MARGIN.right, height - MARGIN.bottom];
    const at = (value, axis, from, to) => from + ((value - view[axis][0]) / (view[axis][1] - view[axis][0])) * (to - from);
    pen.font = `12px ${colours.font}`;
    pen.lineWidth = 1;
    pen.strokeStyle = colours.line;
    pen.fillStyle = colours.muted;
    pen.textAlign = "center";
    pen.textBaseline = "top";
    let last = -Infinity;
    for (const [value, label] of ticks(view.x, isLog.x, width < 520 ? 4 : 8)) {
      const x = at(value, "x", MARGIN.left, right);
      pen.beginPath();
      pen.moveTo(x, MARGIN.top);
      pen.lineTo(x, bottom);
      pen.stroke();
      if (x - last > 44) {
        pen.fillText(short(label), x, bottom + 7);
        last = x;
      }
    }
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const [value, label] of ticks(view.y, isLog.y, 6)) {
      const y = at(value, "y", bottom, MARGIN.top);
      pen.beginPath();
      pen.moveTo(MARGIN.left, y);
      pen.lineTo(right, y);
      pen.stroke();
      pen.fillText(share(label), MARGIN.left - 8, y);
    }
    pen.fillStyle = colours.text;
    pen.textAlign = "center";
    pen.textBaseline = "bottom";
    pen.fillText(box.dataset.x, (MARGIN.left + right) / 2, height - 6);
    pen.save();
    pen.translate(13, (MARGIN.top + bottom) / 2);
    pen.rotate(-Math.PI / 2);
    pen.textBaseline = "middle";
    pen.fillText(isLog.y ? "Test error" : "Test accuracy", 0, 0);
    pen.restore();
  }

  // A dot is drawn once per colour and then copied: quicker than filling ten thousand circles, and dense places show.
  function dot(colour, radius) {
    const ratio = window.devicePixelRatio || 1;
    const side = 2 * radius + 2;
    const made = document.createElement("canvas");
    made.width = made.height = Math.ceil(side * ratio);
    const pen = made.getContext("2d");
    pen.scale(made.width / side, made.width / side);
    pen.fillStyle = colour;
    pen.beginPath();
    pen.arc(side / 2, side / 2, radius, 0, 2 * Math.PI);
    pen.fill();
    return made;
  }

  function draw() {
    if (!data) return;
    colours = palette();
    place();
    const pen = context(canvas);
    axes(pen);
    pen.save();
    pen.beginPath();
    pen.rect(MARGIN.left, MARGIN.top, screen.width - MARGIN.left - MARGIN.right, screen.height - MARGIN.top - MARGIN.bottom);
    pen.clip();
    const many = data.ax.length > 1500;
    const radius = many ? 2.6 : 4.2;
    pen.globalAlpha = many ? 0.5 : 0.8;
    const dots = colours.groups.map((colour) => dot(colour, radius));
    const side = 2 * radius + 2;
    for (let group = GROUPS; group >= 0; group--)
      for (const cell of screen.cells.values())
        for (const i of cell)
          if (data.colour[i] === group) pen.drawImage(dots[group], screen.px[i] - side / 2, screen.py[i] - side / 2, side, side);
    pen.globalAlpha = 1;
    front(pen);
    pen.restore();
    point(current, { quiet: true });
  }

  function front(pen) {
    pen.strokeStyle = colours.best;
    pen.lineWidth = 1.6;
    pen.beginPath();
    data.best.forEach((i, n) => {
      if (n) pen.lineTo(screen.px[i], screen.py[data.best[n - 1]]);
      else pen.moveTo(screen.px[i], screen.py[i]);
      pen.lineTo(screen.px[i], screen.py[i]);
    });
    if (data.best.length) pen.lineTo(screen.width, screen.py[data.best.at(-1)]);
    pen.stroke();
    for (const i of data.best) {
      pen.beginPath();
      pen.arc(screen.px[i], screen.py[i], 5, 0, 2 * Math.PI);
      pen.fillStyle = colours.groups[data.colour[i]];
      pen.fill();
      pen.stroke();
    }
  }

  function words(i) {
    return `${data.reference[i]}\n${share(data.accuracy[i])} accuracy\n${short(data.x[i])} ${box.dataset.x.toLowerCase()}\n${data.group[i]}`;
  }

  function point(i, { quiet = false } = {}) {
    current = i;
    const pen = context(over);
    canvas.classList.toggle("over", i >= 0);
    if (drag?.to) {
      pen.strokeStyle = colours.text;
      pen.setLineDash([4, 3]);
      pen.strokeRect(drag.from[0], drag.from[1], drag.to[0] - drag.from[0], drag.to[1] - drag.from[1]);
    }
    if (i < 0) {
      tip.hidden = true;
      return;
    }
    const [x, y] = [screen.px[i], screen.py[i]];
    pen.setLineDash([]);
    pen.strokeStyle = colours.best;
    pen.lineWidth = 2.5;
    pen.beginPath();
    pen.arc(x, y, 8, 0, 2 * Math.PI);
    pen.stroke();
    tip.querySelector("span").textContent = words(i);
    const address = `${data.url[i].replace(/^\/entry\//, "/thumbnail/")}.svg`;
    const picture = tip.querySelector("img");
    if (picture.getAttribute("src") !== address) {
      picture.hidden = false;
      picture.src = address;
    }
    tip.hidden = false;
    const [width, height] = [tip.offsetWidth, tip.offsetHeight];
    tip.style.left = `${Math.max(4, Math.min(x + 14 + width > screen.width ? x - 14 - width : x + 14, screen.width - width - 4))}px`;
    tip.style.top = `${Math.max(4, y - 14 - height < 0 ? y + 14 : y - 14 - height)}px`;
    if (!quiet) said.textContent = words(i).replaceAll("\n", ", ");
  }

  const where = (event) => {
    const frame = canvas.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  };

  function zoom(from, to) {
    const w = screen.width - MARGIN.left - MARGIN.right;
    const h = screen.height - MARGIN.top - MARGIN.bottom;
    const xs = [from[0], to[0]].sort((a, b) => a - b).map((x) => view.x[0] + ((x - MARGIN.left) / w) * (view.x[1] - view.x[0]));
    const ys = [from[1], to[1]].sort((a, b) => b - a).map((y) => view.y[0] + (1 - (y - MARGIN.top) / h) * (view.y[1] - view.y[0]));
    view = { x: xs, y: ys };
    whole.disabled = false;
    current = -1;
    draw();
  }

  function reset() {
    view = full;
    whole.disabled = true;
    current = -1;
    draw();
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button || event.pointerType === "touch" || !data) return;
    drag = { from: where(event), to: null };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!data || event.pointerType === "touch") return;
    const at = where(event);
    if (drag && Math.hypot(at[0] - drag.from[0], at[1] - drag.from[1]) > 6) {
      drag.to = at;
      point(-1);
    } else if (!drag) {
      const found = nearest(...at);
      if (found !== current) point(found, { quiet: true });
    }
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!data) return;
    const made = drag;
    drag = null;
    if (made?.to) {
      const large = Math.abs(made.to[0] - made.from[0]) > 8 && Math.abs(made.to[1] - made.from[1]) > 8;
      if (large) zoom(made.from, made.to);
      else point(-1);
      return;
    }
    const found = nearest(...where(event));
    const isSecondTap = event.pointerType !== "touch" || found === current;
    if (found >= 0 && isSecondTap) location.assign(data.url[found]);
    else point(found);
  });
  canvas.addEventListener("pointerleave", () => {
    if (data && !drag && document.activeElement !== canvas) point(-1);
  });
  canvas.addEventListener("dblclick", reset);
  whole.addEventListener("click", reset);
  canvas.addEventListener("keydown", (event) => {
    if (!data?.best.length) return;
    const place = data.best.indexOf(current);
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (step) {
      event.preventDefault();
      point(data.best[Math.max(0, Math.min(data.best.length - 1, place < 0 ? 0 : place + step))]);
    } else if (event.key === "Enter" && current >= 0) location.assign(data.url[current]);
    else if (event.key === "Escape") reset();
  });
  canvas.addEventListener("blur", () => point(-1));

  tip.querySelector("img").addEventListener("error", (event) => {
    event.target.hidden = true; // an entry whose graph has vanished has no picture
  });
  document.addEventListener("nasgraph:theme", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(() => requestAnimationFrame(draw)).observe(box);
  for (const field of document.querySelectorAll("#chart-settings select"))
    field.addEventListener("change", () => field.form.requestSubmit());

  fetch(box.dataset.points, { headers: { accept: "application/json" } })
    .then((answer) => {
      if (!answer.ok) throw new Error(`The points could not be read (${answer.status})`);
      return answer.json();
    })
    .then((found) => {
      const { colour, legend } = groupsOf(found.group);
      data = found;
      data.colour = colour;
      data.ax = Float64Array.from(found.x, (value) => toAxis(value, isLog.x));
      data.ay = isLog.y
        ? Float64Array.from(found.accuracy, (value) => Math.log10(Math.max(1 - value, 1e-4)))
        : Float64Array.from(found.accuracy);
      full = view = { x: range(data.ax, isLog.x), y: range(data.ay, isLog.y) };
      if (isLog.y) full = view = { x: view.x, y: [view.y[1], view.y[0]] }; // the smallest error is at the top
      showLegend(legend);
      const started = performance.now();
      draw();
      box.dataset.drawnMs = (performance.now() - started).toFixed(1);
    })
    .catch((error) => {
      const note = document.createElement("p");
      note.className = "problem";
      note.setAttribute("role", "alert");
      note.textContent = error.message;
      box.after(note);
    });
})();
