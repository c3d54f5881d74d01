// Light, dark or as the system says: chosen by a button, remembered by the browser. Loaded before the page is drawn, so nothing flashes.
"use strict";
(() => {
  const KEY = "nasgraph-theme";
  const NEXT = { automatic: "light", light: "dark", dark: "automatic" };
  const read = () => {
    try {
      return Object.hasOwn(NEXT, localStorage.getItem(KEY)) ? localStorage.getItem(KEY) : "automatic";
    } catch {
      return "automatic"; // storage is switched off
    }
  };
  const apply = (theme) => {
    if (theme === "automatic") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    document.dispatchEvent(new CustomEvent("nasgraph:theme"));
  };
  apply(read());
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => {
      button.textContent = `Colours: ${read()}`;
    };
    label();
    button.hidden = false;
    button.addEventListener("click", () => {
      try {
        localStorage.setItem(KEY, NEXT[read()]);
      } catch {
        return;
      }
      apply(read());
      label();
    });
  });
})();
