// Buttons that copy a command, and a word about it for screen readers.
"use strict";
(() => {
  document.documentElement.classList.add("has-script");
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return false; // not allowed, or no secure context: the text stands there to be selected
    }
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (button === null) return;
    const done = await copy(button.dataset.copy);
    button.textContent = done ? "Copied" : "Select and copy";
    document.getElementById("copied").textContent = done ? `Copied: ${button.dataset.copy}` : "The browser does not allow copying.";
    setTimeout(() => {
      button.textContent = "Copy";
    }, 2000);
  });
})();
