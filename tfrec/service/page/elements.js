// Elements from data. Text goes in as text: titles are other people's, and may be anything.

// What would not be seen, or would turn the direction of what follows, is shown as its number.
const UNSEEN = /[\p{Cc}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/gu;

export function printable(text) {
  return String(text).replace(UNSEEN, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

// An element; children are elements or text. Properties that begin with "on" are listeners, others attributes.
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

// A title, kept apart from the direction of the text around it.
export function titled(text) {
  return element("bdi", {}, printable(text));
}

export function number(value, digits = 4) {
  if (value === null || value === undefined) return "no number";
  const size = Math.abs(value);
  return size !== 0 && (size < 0.001 || size >= 1e6) ? value.toExponential(2) : value.toFixed(digits);
}

export function counted(count, one, several = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : several}`;
}

// A bar that shows a part of 1.
export function bar(part) {
  const inner = element("span");
  inner.style.width = `${(100 * Math.min(1, Math.max(0, part))).toFixed(1)}%`;
  return element("span", { class: "bar", "aria-hidden": "true" }, inner);
}
