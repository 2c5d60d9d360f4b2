// The page: what is asked for stands in the address after "#", and everything is drawn from that.

import { ask, ServiceError, setToken } from "./api.js";
import { chart } from "./chart.js";
import { combobox } from "./combobox.js";
import { bar, counted, element, number, printable, titled } from "./elements.js";

const SUGGESTIONS = 12;
const REASONS = 5;
const SIMILAR = 10;
const HAS = 5;
const DRAW_MS = 60;
const SIDES = ["a", "b"];
const by = (id) => document.getElementById(id);

// What is asked for. Items are {item, title}; in the address they are their ids.
const state = { who: "user", user: null, history: [], exclude: [], k: 10, popular: 0, a: null, b: null };
// Name of a model -> what it can be asked, and how its run did.
let models = new Map();
let drawing = null;

// ---- the address ----------------------------------------------------------------------------------------------------

function write() {
  const fields = new URLSearchParams();
  if (state.who === "user" && state.user !== null) fields.set("user", state.user);
  if (state.who === "history") {
    fields.set("who", "history");
    state.history.forEach(({ item }) => fields.append("history", item));
  }
  state.exclude.forEach(({ item }) => fields.append("exclude", item));
  if (state.k !== 10) fields.set("k", state.k);
  if (state.popular) fields.set("popular", state.popular);
  fields.set("a", state.a);
  if (state.b) fields.set("b", state.b);
  history.replaceState(null, "", `#${fields}`);
}

async function read() {
  const fields = new URLSearchParams(location.hash.slice(1));
  const names = [...models.keys()];
  const whole = (name, low, high, usual) => {
    const value = Number.parseInt(fields.get(name) ?? "", 10);
    return Number.isNaN(value) ? usual : Math.min(high, Math.max(low, value));
  };
  state.a = models.has(fields.get("a")) ? fields.get("a") : names[0];
  state.b = models.has(fields.get("b")) ? fields.get("b") : fields.has("a") ? null : names[1] ?? null;
  state.who = fields.get("who") === "history" ? "history" : "user";
  state.user = fields.get("user");
  state.k = whole("k", 1, 50, 10);
  state.popular = whole("popular", 0, 100, 0);
  for (const list of ["history", "exclude"]) state[list] = await Promise.all(fields.getAll(list).map(withTitle));
}

async function withTitle(item) {
  const { items } = await ask("search", { q: item, k: SUGGESTIONS, model: state.a }).catch(() => ({ items: [] }));
  const found = items.find((entry) => String(entry.item) === item);
  return { item, title: found ? found.title : item };
}

// ---- to choose ------------------------------------------------------------------------------------------------------

async function suggestItems(text) {
  const { items } = await ask("search", { q: text, k: SUGGESTIONS, model: state.a });
  return items.map((entry) => ({
    value: entry,
    text: entry.title,
    label: element("span", {}, titled(entry.title), " ",
      element("small", { class: "soft" }, counted(entry.popularity, "interaction"))),
  }));
}

async function suggestUsers(text) {
  const { users } = await ask("search", { q: text, what: "users", k: SUGGESTIONS, model: state.a });
  return users.map(({ user }) => ({ value: String(user), text: String(user), label: titled(user) }));
}

function add(list, { item, title }) {
  if (!state[list].some((entry) => String(entry.item) === String(item))) state[list].push({ item, title });
  changed();
}

function drawChips(list) {
  by(`${list}-chips`).replaceChildren(...state[list].map((entry, place) => element("li", {}, titled(entry.title),
    element("button", {
      type: "button",
      "aria-label": `Remove ${printable(entry.title)}`,
      onclick: () => { state[list].splice(place, 1); changed(); by(list).focus(); },
    }, "✕"))));
}

function drawChoices() {
  const next = models.get(state.a);
  document.querySelector(`input[name=who][value=${state.who}]`).checked = true;
  document.querySelector("input[name=who][value=history]").disabled = !next.takes_histories;
  by("user-field").hidden = state.who !== "user";
  by("history-field").hidden = state.who !== "history";
  if (document.activeElement !== by("user")) by("user").value = state.user ?? "";
  for (const id of ["k", "popular"]) {
    by(id).value = state[id];
    by(`${id}-shown`).textContent = state[id];
  }
  for (const list of ["history", "exclude"]) drawChips(list);
  for (const side of SIDES) by(`run-${side}`).value = state[side] ?? "";
  by("list-b").hidden = models.size < 2;
  document.querySelector(".two").classList.toggle("one", models.size < 2);
}

// ---- to show --------------------------------------------------------------------------------------------------------

let timer = null;
function changed() {
  write();
  drawChoices();
  clearTimeout(timer);
  timer = setTimeout(draw, DRAW_MS);
}

function asked() {
  if (state.who === "user") return state.user === null ? null : { user: state.user };
  return state.history.length ? { history: state.history.map(({ item }) => item) } : null;
}

async function draw() {
  drawing?.abort();
  drawing = new AbortController();
  const { signal } = drawing;
  const who = asked();
  try {
    if (who === null) {
      say(state.who === "user" ? "Choose a user." : "Add an item, and the lists are of what goes with it.");
      for (const side of SIDES) drawList(side, null, new Set());
    } else {
      const lists = await Promise.all(SIDES.map((side) => recommended(side, who, signal)));
      const both = common(lists);
      SIDES.forEach((side, place) => drawList(side, lists[place], both));
      say(lists[0] && lists[1] && lists[0].items && lists[1].items
        ? `${counted(both.size, "item is", "items are")} in both lists.` : "");
    }
    await drawUser(signal);
    drawFacts();
  } catch (error) {
    fail(error);
  }
}

async function recommended(side, who, signal) {
  const model = state[side];
  if (!model) return null;
  if (who.history && !models.get(model).takes_histories) return { wrong: "This model knows users of its data only." };
  const exclude = state.exclude.map(({ item }) => item);
  const fields = { ...who, k: Math.min(state.k, models.get(model).num_items), exclude, model };
  try {
    return await ask("recommend", { ...fields, exclude_popular: state.popular || null }, signal);
  } catch (error) {
    if (error instanceof ServiceError && error.status === 400) return { wrong: error.message };
    throw error;
  }
}

function common([one, other]) {
  if (!one?.items || !other?.items) return new Set();
  const found = new Set(one.items.map(({ item }) => String(item)));
  return new Set(other.items.map(({ item }) => String(item)).filter((item) => found.has(item)));
}

function drawList(side, answer, both) {
  const section = by(`list-${side}`);
  const about = section.querySelector(".about");
  const list = section.querySelector("ol");
  if (!answer?.items) {
    about.textContent = answer?.wrong ?? "";
    list.replaceChildren();
    return;
  }
  const scores = answer.items.map(({ score }) => score).filter((score) => score !== null);
  const [low, high] = [Math.min(...scores), Math.max(...scores)];
  const words = [];
  if (!answer.known) words.push("Nothing is known of this taste, so these are popular items.");
  if (answer.unknown?.history) words.push("Some items are not this model's, and are left out.");
  if (!answer.items.length) words.push("No item is left.");
  else if (answer.items.length < state.k) words.push(`Only ${counted(answer.items.length, "item")} left.`);
  about.textContent = words.join(" ");
  list.replaceChildren(...answer.items.map((entry) => row(side, entry, {
    part: high > low ? 0.05 + (0.95 * (entry.score - low)) / (high - low) : 1,
    both: both.has(String(entry.item)),
    why: answer.known && models.get(state[side]).explains,
  })));
}

function row(side, entry, { part, both, why }) {
  const model = models.get(state[side]);
  const title = printable(entry.title);
  const actions = element("span", { class: "actions" });
  const made = element("li", both ? { class: "both" } : {},
    element("span", { class: "rank" }, String(entry.rank)),
    element("span", { class: "item-title" }, titled(entry.title), both ? element("small", {}, " in both") : null),
    figures(entry), bar(part), actions);
  if (why) {
    actions.append(element("button", {
      type: "button", "aria-expanded": "false", "aria-label": `Why ${title}`,
      onclick: (event) => toggleWhy(event.currentTarget, made, side, entry),
    }, "Why"));
  }
  if (model.compares_items) {
    actions.append(element("button", {
      type: "button", "aria-label": `Similar to ${title}`, onclick: () => drawSimilar(side, entry),
    }, "Similar"));
  }
  if (state.who === "history") {
    actions.append(element("button", {
      type: "button", "aria-label": `Add ${title}`, onclick: () => add("history", entry),
    }, "Add"));
  }
  actions.append(element("button", {
    type: "button", "aria-label": `Leave out ${title}`, onclick: () => add("exclude", entry),
  }, "Leave out"));
  return made;
}

function figures({ score, popularity }) {
  return element("span", { class: "figures" }, number(score), element("br"), counted(popularity, "interaction"));
}

async function toggleWhy(button, item, side, { item: id }) {
  const there = item.querySelector(".why");
  button.setAttribute("aria-expanded", String(!there));
  if (there) {
    there.remove();
    return;
  }
  try {
    const { because } = await ask("explain", { ...asked(), item: id, k: REASONS, model: state[side] });
    const most = Math.max(...because.map(({ contribution }) => Math.abs(contribution)), 1e-30);
    item.append(element("div", { class: "why" }, because.length ? "Because of" : "No single item speaks for it.",
      element("ul", {}, ...because.map(({ title, contribution }) => {
        const drawn = bar(Math.abs(contribution) / most);
        if (contribution < 0) drawn.firstChild.classList.add("minus");
        return element("li", {}, element("span", {}, titled(title), drawn),
          element("span", { class: "figures" }, (contribution > 0 ? "+" : "") + number(contribution)));
      }))));
  } catch (error) {
    button.setAttribute("aria-expanded", "false");
    fail(error);
  }
}

async function drawSimilar(side, { item, title }) {
  try {
    const model = state[side];
    const { items } = await ask("similar", { item, k: Math.min(SIMILAR, models.get(model).num_items), model });
    by("similar-title").replaceChildren("Similar to ", titled(title), ` in ${model}`);
    by("similar").querySelector("ol").replaceChildren(...items.map((entry) => element("li", {},
      element("span", { class: "rank" }, String(entry.rank)),
      element("span", { class: "item-title" }, titled(entry.title)), figures(entry), bar(entry.score ?? 0))));
    by("similar").hidden = false;
    by("similar").focus();
    by("similar").scrollIntoView({ block: "nearest" });
  } catch (error) {
    fail(error);
  }
}

async function drawUser(signal) {
  const about = by("user-about");
  if (state.who !== "user" || state.user === null) {
    about.replaceChildren();
    return;
  }
  const { known, count, items } = await ask("history", { user: state.user, k: HAS, model: state.a }, signal);
  if (!known) {
    about.replaceChildren("The data does not have this user.");
    return;
  }
  const shown = items.flatMap(({ title }, place) => [place ? ", " : ": ", titled(title)]);
  about.replaceChildren(`Has ${counted(count, "item")}`, ...shown, count > items.length ? ", …" : "");
}

function drawFacts() {
  const runs = SIDES.map((side) => [side, state[side], models.get(state[side])?.run]).filter(([, name]) => name);
  const known = runs.filter(([, , run]) => run);
  const parts = runs.filter(([, , run]) => !run).map(([, name]) => element("p", { class: "soft" },
    `${name} has no report.`));
  const metrics = [...new Set(known.flatMap(([, , run]) => Object.keys(run.test)))];
  if (metrics.length) {
    const comparable = known.length > 1 && known.every(([, , run]) => run.split && run.split === known[0][2].split);
    const best = (metric, run) => comparable
      && run.test[metric]?.model === Math.max(...known.map(([, , other]) => other.test[metric]?.model ?? -Infinity));
    parts.push(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Test metrics" },
      element("table", {},
        element("caption", {}, known.map(([, name, run]) =>
          `${name}: ${counted(run.users, "test user")} of ${printable(run.data.name)}`).join("; ")),
        element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Test"),
          ...known.flatMap(([, name]) => [element("th", { scope: "col", class: "n" }, name),
            element("th", { scope: "col", class: "n" }, "popularity")]))),
        element("tbody", {}, ...metrics.map((metric) => element("tr", {},
          element("th", { scope: "row" }, metric),
          ...known.flatMap(([, , run]) => [
            element("td", best(metric, run) ? { class: "best" } : {}, shownMetric(run.test[metric]?.model)),
            element("td", { class: "soft" }, shownMetric(run.test[metric]?.popularity))])))))));
  }
  if (known.length > 1 && known[0][2].split !== known[1][2].split) {
    parts.push(element("p", { class: "soft" },
      "These runs were tested on different targets, so their figures say nothing about which is better."));
  }
  const curves = element("div", { class: "figures-row" });
  for (const [side, name, run] of known) {
    for (const { title, unit, points } of run.curves) {
      curves.append(chart(`${name}: ${title}`, unit, [{ name, className: side, points }]));
    }
  }
  parts.push(curves);
  by("facts").replaceChildren(...parts);
}

function shownMetric(value) {
  return value === null || value === undefined ? "–" : number(value);
}

function say(text) {
  by("status").className = "";
  by("status").textContent = text;
}

function fail(error) {
  if (error.name === "AbortError") return;
  if (error.status === 401) {
    by("token-form").hidden = false;
    by("token").focus();
    return;
  }
  by("status").className = "wrong";
  by("status").textContent = error instanceof ServiceError ? error.message : "The page failed: reload it.";
  if (!(error instanceof ServiceError)) console.error(error);
}

// ---- the beginning --------------------------------------------------------------------------------------------------

function listen() {
  combobox(by("user"), {
    suggest: suggestUsers, free: true, keepText: true, choose: ({ value }) => { state.user = value; changed(); },
  });
  combobox(by("history"), { suggest: suggestItems, choose: ({ value }) => add("history", value) });
  combobox(by("exclude"), { suggest: suggestItems, choose: ({ value }) => add("exclude", value) });
  for (const radio of document.querySelectorAll("input[name=who]")) {
    radio.addEventListener("change", () => { state.who = radio.value; changed(); });
  }
  for (const id of ["k", "popular"]) {
    by(id).addEventListener("input", () => { state[id] = Number(by(id).value); changed(); });
  }
  for (const side of SIDES) {
    by(`run-${side}`).replaceChildren(
      ...(side === "b" ? [element("option", { value: "" }, "no other run")] : []),
      ...[...models.keys()].map((name) => element("option", { value: name }, name)));
    by(`run-${side}`).addEventListener("change", (event) => { state[side] = event.target.value || null; changed(); });
  }
  by("similar-close").addEventListener("click", () => { by("similar").hidden = true; });
  window.addEventListener("hashchange", async () => { await read(); changed(); });
}

async function start() {
  try {
    const answer = await ask("models");
    models = new Map(answer.models.map((model) => [model.name, model]));
    by("token-form").hidden = true;
    listen();
    await read();
    if (state.user === null && state.who === "user") {
      const { users } = await ask("search", { what: "users", k: 1, model: state.a });
      if (users.length) state.user = String(users[0].user);
    }
    changed();
  } catch (error) {
    fail(error);
  }
}

by("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(by("token").value);
  start();
});
start();
