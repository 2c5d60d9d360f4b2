// Curves as SVG.

import { element } from "./elements.js";

const WIDTH = 360;
const HEIGHT = 180;
const LEFT = 58;
const BOTTOM = 26;
const TOP = 10;
const RIGHT = 10;

function short(value) {
  return String(Number(value.toPrecision(3)));
}

function drawn(tag, attributes, text = null) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  return made;
}

// lines: {name, className, points: [[x, y], ...]}
export function chart(title, unit, lines) {
  const points = lines.flatMap((line) => line.points);
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const [low, high] = [Math.min(...ys), Math.max(...ys)];
  const [first, last] = [Math.min(...xs), Math.max(...xs)];
  const right = (x) => LEFT + ((x - first) / (last - first || 1)) * (WIDTH - LEFT - RIGHT);
  const down = (y) => HEIGHT - BOTTOM - ((y - low) / (high - low || 1)) * (HEIGHT - BOTTOM - TOP);
  const picture = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  const said = lines.map((line) => `${line.name}: from ${short(line.points[0][1])} to ${short(line.points.at(-1)[1])}`);
  picture.setAttribute("aria-label", `${title}. ${said.join("; ")}.`);
  for (const y of low === high ? [low] : [low, (low + high) / 2, high]) {
    picture.append(drawn("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: down(y), y2: down(y) }));
    picture.append(drawn("text", { x: LEFT - 6, y: down(y) + 4, "text-anchor": "end" }, short(y)));
  }
  for (const [x, anchor] of [[first, "start"], [last, "end"]]) {
    picture.append(drawn("text", { x: right(x), y: HEIGHT - 8, "text-anchor": anchor }, String(x)));
  }
  picture.append(drawn("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, unit));
  for (const line of lines) {
    const path = line.points.map(([x, y], place) => `${place ? "L" : "M"}${right(x).toFixed(1)} ${down(y).toFixed(1)}`);
    picture.append(drawn("path", { class: `line ${line.className}`, d: path.join("") }));
  }
  return element("figure", {}, element("figcaption", {}, title), picture);
}
