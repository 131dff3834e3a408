// Puts the page together: views, filters, keys, and the address that keeps them over a reload.

import { choice, help, isOpen, note as askNote } from "./dialogs.js";
import * as grid from "./grid.js";
import * as left from "./left.js";
import { make, named, SIGNS, told } from "./parts.js";
import * as single from "./single.js";
import { chosen, concepts, content, decide, decided, note, pictures, refresh, send, SHOWN, states,
  verdict } from "./store.js";

const byId = (id) => document.getElementById(id);
const VIEWS = ["single", "grid", "left"];
const EVERY = 2500; // milliseconds between looks for what other tabs decided
const shown = { view: "single", show: "all", concept: "", order: "" };
let list = [];
let at = 0;
let pointed = false;
let remembering = 0;
let lost = false;

// ---------------------------------------------------------------- what is shown

const here = () => (shown.view === "grid" ? grid.current(byId("grid"))?.picture : list[at]) ?? null;

const draw = () => {
  for (const view of VIEWS) byId(view).hidden = view !== shown.view;
  byId("actions").hidden = shown.view === "left";
  for (const name of ["show", "order"]) byId(name).parentElement.hidden = shown.view === "left";
  for (const button of byId("views").children) {
    button.setAttribute("aria-pressed", String(button.dataset.view === shown.view));
  }
  if (shown.view === "single") single.draw(byId("single"), list, at, open);
  if (shown.view === "grid") grid.draw(byId("grid"), list, shown.order, list[at]?.id);
  if (shown.view === "left") left.draw(byId("left"), shown.concept);
  update();
};

// What depends on decisions alone.
const update = () => {
  const all = content.pictures.length;
  const count = { keep: 0, drop: 0, concept: 0 };
  for (const id of pictures.keys()) if (decided(id)) count[verdict(id)] += 1;
  const done = count.keep + count.drop + count.concept;
  byId("progress").max = Math.max(all, 1);
  byId("progress").value = done;
  byId("counts").replaceChildren(
    make("b", {}, `${done.toLocaleString("en")} of ${all.toLocaleString("en")} decided`),
    make("span", {}, `${SIGNS.keep} ${count.keep} kept`),
    make("span", {}, `${SIGNS.drop} ${count.drop} dropped`),
    make("span", {}, `${SIGNS.concept} ${count.concept} wrong`));
  single.update(byId("single"), list[at]);
  if (shown.view === "grid") byId("grid").querySelectorAll(".thumb").forEach(grid.update);
  if (shown.view === "left") byId("left").querySelectorAll(".out").forEach(left.update);
  control();
};

// What depends on the picture that keys are about.
const control = () => {
  const one = here();
  for (const button of byId("actions").children) {
    if (button.dataset.act in SIGNS && button.dataset.act !== "note") {
      button.setAttribute("aria-pressed", String(one !== null && verdict(one.id) === button.dataset.act));
    }
    button.disabled = one === null && button.dataset.act !== "undo";
  }
  remember();
};

// Not at once: browsers refuse an address that changes with every key.
const remember = () => {
  clearTimeout(remembering);
  remembering = setTimeout(() => {
    const kept = { ...shown, at: here()?.id.slice(0, 16) ?? "" };
    const told = Object.entries(kept).filter(([, value]) => value);
    history.replaceState(null, "", `#${new URLSearchParams(told)}`);
  }, 400);
};

const recall = () => {
  const told = new URLSearchParams(location.hash.slice(1));
  if (VIEWS.includes(told.get("view"))) shown.view = told.get("view");
  if (told.get("show") in SHOWN) shown.show = told.get("show");
  if (concepts.has(told.get("concept"))) shown.concept = told.get("concept");
  if (content.scores.includes(told.get("order"))) shown.order = told.get("order");
  list = chosen(shown);
  const wanted = told.get("at");
  const place = wanted ? list.findIndex((one) => one.id.startsWith(wanted)) : -1;
  at = Math.max(0, place < 0 ? list.findIndex((one) => !decided(one.id)) : place);
};

// A place in the list, or a picture that may lie outside of it.
const open = (where) => {
  if (typeof where === "string") {
    let place = list.findIndex((one) => one.id === where);
    if (place < 0) {
      if (!pictures.has(where)) return;
      Object.assign(shown, { show: "all", concept: "" });
      fillFilters();
      list = chosen(shown);
      place = list.findIndex((one) => one.id === where);
    }
    at = place;
    shown.view = "single";
  } else {
    if (where < 0 || where >= list.length) return;
    at = where;
  }
  draw();
  byId("work").focus({ preventScroll: true });
};

// The status is read out; one message after the other, also if both are the same.
const say = (text, kind = "") => {
  const status = byId("status");
  status.replaceChildren(make("span", {}, text));
  status.dataset.kind = kind;
  status.classList.remove("fresh");
  void status.offsetWidth;
  status.classList.add("fresh");
};

const alert = (text) => {
  byId("alert").textContent = text;
  byId("alert").hidden = !text;
};

// ---------------------------------------------------------------- deciding

const act = async (what, id = here()?.id) => {
  if (what === "undo") return undo();
  const one = pictures.get(id) ?? content.left_out.find((row) => row.id === id && row.shown);
  if (!one) return;
  if (what === "note") return writeNote(one);
  if (what === "concept" && !pictures.has(id)) return;
  const concept = what === "concept" ? await choice(one) : null;
  if (concept === undefined) return;
  const asked = { verdict: what, concept, note: note(id) };
  await settle(one, asked, () => `${label(one)}: ${told(id)}`, true);
};

const label = (one) => (pictures.has(one.id) ? named(one) : `${concepts.get(one.concept)?.name}, left out`);

const writeNote = async (one) => {
  const text = await askNote(note(one.id));
  if (text === undefined || text === note(one.id)) return;
  const asked = { verdict: verdict(one.id) ?? "note", concept: states.get(one.id)?.concept ?? null, note: text };
  await settle(one, asked, () => `${label(one)}: ${text ? "noted" : "note taken off"}`, false);
};

const settle = async (one, asked, words, goesOn) => {
  const saved = decide(one.id, asked);
  if (!goesOn) update();
  else goOn();
  say(words() + (goesOn ? ending() : ""), asked.verdict);
  try {
    await saved;
    alert("");
  } catch (error) {
    alert(`Not saved: ${label(one)}. ${error.message}`);
    if (pictures.has(one.id) && shown.view === "single") open(one.id);
  }
  update();
};

const goOn = () => {
  if (shown.view === "single" && at < list.length - 1) {
    at += 1;
    draw();
  } else {
    if (shown.view === "grid") grid.move(byId("grid"), "ArrowRight");
    update();
  }
};

const ending = () => {
  const left = list.filter((one) => !decided(one.id)).length;
  return left ? "" : ". All pictures of this list are decided";
};

const undo = async (id = null) => {
  try {
    const answer = await send({ image_id: id, verdict: "undo" });
    alert("");
    const one = pictures.get(answer.about);
    if (one && shown.view === "single") open(one.id);
    if (one && shown.view === "grid") {
      byId("grid").querySelector(`[data-id="${CSS.escape(one.id)}"]`)?.focus();
    }
    say(`Taken back: ${one ? `${named(one)} is ${told(one.id)}` : "a picture that was left out"}`, "undo");
  } catch (error) {
    say(error.message, "undo");
  }
  update();
};

// ---------------------------------------------------------------- what is pressed

const KEYS = { k: "keep", d: "drop", w: "concept", n: "note", u: "undo" };

const pressed = (event) => {
  const typing = event.target.closest?.("input, select, textarea");
  if (isOpen() || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const row = event.target.closest?.(".out");
  if (key in KEYS) {
    event.preventDefault();
    if (event.repeat) return;
    if (shown.view !== "left") act(KEYS[key]);
    else if (key === "u" || (row && key !== "w")) act(KEYS[key], row?.dataset.id);
  } else if (key === "?") {
    help();
  } else if (key === "g") {
    look(shown.view === "grid" ? "single" : "grid");
  } else if (shown.view === "grid" && key.startsWith("Arrow")) {
    if (grid.move(byId("grid"), key)) event.preventDefault();
  } else if (shown.view === "single" && (key === "ArrowRight" || key === "j")) {
    open(at + 1);
  } else if (shown.view === "single" && key === "ArrowLeft") {
    open(at - 1);
  }
};

const look = (view) => {
  const one = here();
  if (one) at = Math.max(0, list.findIndex((other) => other.id === one.id));
  shown.view = view;
  draw();
  const place = view === "grid" ? grid.current(byId("grid")) : byId("work");
  place?.focus({ preventScroll: view !== "grid" });
};

const fillFilters = () => {
  const option = (value, text, chosen) => make("option", { value, selected: chosen }, text);
  byId("show").replaceChildren(
    ...Object.entries(SHOWN).map(([value, [text]]) => option(value, text, value === shown.show)));
  byId("concept").replaceChildren(option("", "all concepts", !shown.concept),
    ...content.groups.map((group) => make("optgroup", { label: group.title },
      ...group.concepts.map((one) => option(one.id, one.name, one.id === shown.concept)))));
  byId("order").replaceChildren(option("", "as in the dataset", !shown.order),
    ...content.scores.map((name) => option(name, `lowest ${name} first`, name === shown.order)));
};

const start = () => {
  document.title = `Review ${content.name}`;
  byId("name").textContent = content.name;
  byId("left-count").textContent = content.left_out.length;
  byId("file").textContent = content.file;
  byId("loading").remove();
  recall();
  fillFilters();
  for (const name of ["show", "concept", "order"]) {
    byId(name).addEventListener("change", (event) => {
      const before = here();
      shown[name] = event.target.value;
      list = chosen(shown);
      at = name === "order" ? 0 : Math.max(0, list.indexOf(before));
      draw();
      say(list.length === 1 ? "1 picture" : `${list.length} pictures`);
      if (pointed) byId("work").focus({ preventScroll: true }); // so that keys decide again
    });
  }
  document.addEventListener("pointerdown", () => { pointed = true; });
  document.addEventListener("keydown", (event) => { pointed = false; pressed(event); });
  byId("views").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) look(button.dataset.view);
  });
  byId("actions").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) act(button.dataset.act);
  });
  byId("left").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    const id = button?.closest(".out").dataset.id;
    if (button?.dataset.act === "back") undo(id);
    else if (button) act(button.dataset.act, id);
  });
  grid.bind(byId("grid"), open);
  byId("grid").addEventListener("focusin", control);
  byId("help-button").addEventListener("click", help);
  draw();
  window.addEventListener("focus", catchUp);
  setInterval(() => { if (!document.hidden) catchUp(); }, EVERY);
  document.documentElement.dataset.ready = "true";
};

const catchUp = async () => {
  try {
    if (await refresh()) update();
    if (lost) alert("");
    lost = false;
  } catch {
    if (!lost) alert("The server has ended: run `isekai review` again to go on. What was decided is in the file.");
    lost = true;
  }
};

start();
