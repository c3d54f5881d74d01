// Ticks of the table outlive filtering and paging: they are kept for this tab, shown as a list, and sent to the compare page.
// Without this script the ticks of the page that is shown are sent.
"use strict";
(() => {
  const KEY = "nasgraph-compare";
  const LIMIT = 4;
  const read = () => {
    try {
      const found = JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
      return Array.isArray(found) ? found.filter((item) => typeof item === "string").slice(0, LIMIT) : [];
    } catch {
      return [];
    }
  };
  let chosen = read();

  const save = () => {
    try {
      sessionStorage.setItem(KEY, JSON.stringify(chosen));
    } catch {
      // storage is switched off: ticks last as long as the page
    }
  };

  const boxes = () => document.querySelectorAll('input[type="checkbox"][name="with"]');

  const show = () => {
    for (const box of boxes()) {
      box.checked = chosen.includes(box.value);
      box.disabled = !box.checked && chosen.length >= LIMIT;
      box.removeAttribute("form"); // the hidden fields below are sent instead: they also hold ticks of other pages
    }
    const form = document.getElementById("compare");
    const note = document.getElementById("chosen");
    if (!form || !note) return;
    for (const old of form.querySelectorAll('input[type="hidden"]')) old.remove();
    note.replaceChildren();
    for (const reference of chosen) {
      const field = document.createElement("input");
      field.type = "hidden";
      field.name = "with";
      field.value = reference;
      form.append(field);
      const chip = document.createElement("button");
      chip.type = "button";
      chip.className = "chip";
      chip.dataset.reference = reference;
      chip.textContent = `${reference} ×`;
      chip.setAttribute("aria-label", `Do not compare ${reference}`);
      note.append(chip, " ");
    }
    if (chosen.length < 2) note.append(chosen.length ? "Tick one more." : "Tick two to four models.");
    form.querySelector('button[type="submit"]').disabled = chosen.length < 2;
  };

  const choose = (reference, wanted) => {
    chosen = chosen.filter((item) => item !== reference);
    if (wanted && chosen.length < LIMIT) chosen.push(reference);
    save();
    show();
  };

  document.addEventListener("change", (event) => {
    if (event.target.matches('input[type="checkbox"][name="with"]')) {
      event.stopPropagation();
      choose(event.target.value, event.target.checked);
    }
  });
  document.addEventListener("click", (event) => {
    const chip = event.target.closest("button.chip");
    if (!chip) return;
    choose(chip.dataset.reference, false);
    (document.querySelector("button.chip") ?? document.getElementById("q"))?.focus();
  });
  document.addEventListener("htmx:afterSwap", show);
  document.addEventListener("htmx:historyRestore", show);
  window.addEventListener("pageshow", () => {
    chosen = read();
    show();
  });
  const more = document.getElementById("more");
  const isFiltered = [...document.querySelectorAll("#more input, #more select")].some((field) => field.value);
  if (more && !isFiltered && matchMedia("(max-width: 760px)").matches) more.open = false; // the table comes first on a phone
  document.addEventListener("htmx:afterSettle", (event) => {
    // a reader who pages on wants to begin at the top of the new page
    const asked = event.detail.requestConfig?.elt;
    if (asked?.closest?.("nav.pages") || asked?.id?.startsWith("page-")) {
      document.getElementById("results")?.scrollIntoView({ block: "start" });
    }
  });
})();
