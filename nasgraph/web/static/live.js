// A running search is looked at every two seconds, unless the reader pauses or looks elsewhere, until it is over.
"use strict";
(() => {
  const EVERY_MS = 2000;
  document.documentElement.classList.add("has-script");
  document.addEventListener("DOMContentLoaded", () => {
    const state = document.getElementById("state"), button = document.getElementById("pause"), spoken = document.getElementById("announcement");
    let paused = false, focused = null, phase = state.firstElementChild?.dataset.phase;
    const isOver = () => state.firstElementChild?.hasAttribute("data-over") ?? false;
    const finish = () => {
      button.hidden = isOver();
    };
    button.addEventListener("click", () => {
      paused = !paused;
      button.setAttribute("aria-pressed", String(paused));
      button.textContent = paused ? "Go on" : "Pause";
    });
    state.addEventListener("htmx:afterSwap", () => {
      const now = state.firstElementChild?.dataset.phase;
      if (now !== undefined && now !== phase) spoken.textContent = `The search: ${now}`; // not every trial
      phase = now;
      finish();
      if (focused !== null) [...state.querySelectorAll("[tabindex]")].find((part) => part.getAttribute("aria-label") === focused)?.focus({ preventScroll: true });
    });
    state.addEventListener("htmx:beforeSwap", () => {
      focused = state.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    });
    finish();
    setInterval(() => {
      if (!paused && !isOver() && !document.hidden) htmx.trigger(state, "nasgraph:look");
    }, EVERY_MS);
  });
})();
