// A text field with suggestions: the ARIA pattern "editable combobox with list autocomplete".

import { element } from "./elements.js";

const WAIT_MS = 120;

// suggest: text -> promise of entries {value, label: an element, text}; choose: called with an entry.
// free: whether a text that is no suggestion may be chosen.
export function combobox(input, { suggest, choose, free = false, keepText = false }) {
  const list = element("ul", { id: `${input.id}-list`, role: "listbox", "aria-label": "Suggestions", hidden: true });
  input.after(list);
  for (const [name, value] of Object.entries({
    role: "combobox", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": list.id,
    autocomplete: "off", spellcheck: "false",
  })) input.setAttribute(name, value);
  let entries = [];
  let active = -1;
  let timer = null;
  let asked = 0;

  function close() {
    clearTimeout(timer);
    asked += 1;
    entries = [];
    active = -1;
    list.replaceChildren();
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function pick(entry) {
    input.value = keepText ? entry.text : "";
    close();
    choose(entry);
  }

  function show(found) {
    entries = found;
    active = -1;
    input.removeAttribute("aria-activedescendant");
    list.replaceChildren(...found.map((entry, place) => element("li", {
      id: `${list.id}-${place}`, role: "option", "aria-selected": "false",
      // Before the field loses the focus, which would close the list.
      onmousedown: (event) => { event.preventDefault(); pick(entry); },
    }, entry.label)));
    if (!found.length) list.append(element("li", { class: "soft", role: "presentation" }, "Nothing has this name."));
    list.hidden = false;
    input.setAttribute("aria-expanded", String(found.length > 0));
  }

  function move(step) {
    if (!entries.length) return;
    active = (active + step + entries.length) % entries.length;
    [...list.children].forEach((item, place) => item.setAttribute("aria-selected", String(place === active)));
    input.setAttribute("aria-activedescendant", `${list.id}-${active}`);
    list.children[active].scrollIntoView({ block: "nearest" });
  }

  async function look() {
    asked += 1;
    const mine = asked;
    const found = await suggest(input.value.trim()).catch(() => []);
    if (mine === asked && document.activeElement === input) show(found);
  }

  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(look, WAIT_MS);
  });
  input.addEventListener("click", () => { if (list.hidden) look(); });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", async (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) await look();
      move(event.key === "ArrowDown" ? 1 : active < 0 ? 0 : -1);
    } else if (event.key === "Escape") {
      close();
    } else if (event.key === "Enter") {
      event.preventDefault();
      const text = input.value.trim();
      if (active >= 0) pick(entries[active]);
      else if (free && text) pick({ value: text, text });
      else if (text) {
        const found = await suggest(text).catch(() => []);
        if (found.length) pick(found[0]);
      }
    }
  });
}
