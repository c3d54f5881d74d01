// Sends a data set as it is, and shows which models fit it.
"use strict";
(() => {
  const fits = document.getElementById("fits");
  const token = document.querySelector('meta[name="nasgraph-token"]').content;

  const tell = (text, isProblem) => {
    const note = document.createElement("p");
    note.className = isProblem ? "problem" : "note";
    if (isProblem) note.setAttribute("role", "alert");
    note.textContent = text;
    fits.replaceChildren(note);
  };

  async function ask(form, address, body) {
    const button = form.querySelector("button");
    button.disabled = true;
    fits.setAttribute("aria-busy", "true");
    tell("Showing the examples to every model …", false);
    try {
      const answer = await fetch(address, {
        method: "POST",
        body,
        headers: { "Content-Type": "application/octet-stream", "X-NASGraph-Token": token, "HX-Request": "true" },
      });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      fits.replaceChildren(...page.body.childNodes);
      fits.querySelector("h2")?.focus();
    } catch (error) {
      tell(`The server could not be reached (${error.message}).`, true);
    } finally {
      fits.removeAttribute("aria-busy");
      button.disabled = false;
    }
  }

  document.getElementById("upload").addEventListener("submit", (event) => {
    event.preventDefault();
    const file = document.getElementById("file").files[0];
    const kind = file.name.toLowerCase().split(".").pop();
    const most = Number(event.target.dataset.most);
    if (!["npz", "csv", "tsv"].includes(kind)) tell("Expected a file that ends with .npz, .csv or .tsv.", true);
    else if (file.size > most) tell(`Expected at most ${(most / 2 ** 20).toFixed(0)} MiB. A few examples of each class are enough.`, true);
    else ask(event.target, `/for-data/upload?kind=${kind}`, file);
  });
  document.getElementById("server-path")?.addEventListener("submit", (event) => {
    event.preventDefault();
    ask(event.target, "/for-data/path", document.getElementById("path").value);
  });
})();
