// Asks which concept a picture shows, and for a note.

import { concepts, content } from "./store.js";
import { chip, make } from "./parts.js";

const byId = (id) => document.getElementById(id);
const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
const NONE = { id: null, name: "None of these: leave it out" };
const MOST = 60;

export const isOpen = () => document.querySelector("dialog[open]") !== null;

let given = () => {}; // gives up the question that is open

// The next key may come before the browser tells that a dialog was closed, and before it puts the
// focus back: both are done at once, and an old dialog's end is not taken for that of the next.
const show = (dialog, up = () => {}) => {
  const before = document.activeElement;
  const close = () => {
    up();
    dialog.close();
    (before === document.body ? byId("work") : before).focus({ preventScroll: true });
  };
  given();
  given = up;
  dialog.onclose = () => {
    if (!dialog.open) given();
  };
  dialog.onkeydown = (event) => {
    if (event.key !== "Escape" || event.isComposing) return;
    event.preventDefault();
    close();
  };
  dialog.showModal();
  return close;
};

// Answers with a concept's id, null for none of them, or undefined if nothing was picked.
export const choice = (one) => new Promise((resolve) => {
  const [dialog, search, list] = [byId("choice"), byId("choice-search"), byId("choice-list")];
  const own = concepts.get(one.concept);
  const near = own.group.concepts.filter((other) => other.id !== own.id);
  const far = [...concepts.values()].filter((other) => other.group.id !== own.group.id);
  let close;
  let found = [];
  let at = 0;

  const point = (to) => {
    at = Math.max(0, Math.min(found.length - 1, to));
    [...list.children].forEach((item, i) => item.setAttribute("aria-selected", String(i === at)));
    if (found.length) search.setAttribute("aria-activedescendant", `choice-${at}`);
    else search.removeAttribute("aria-activedescendant");
    list.children[at]?.scrollIntoView({ block: "nearest" });
  };
  const pick = (to) => {
    if (!found[to]) return;
    resolve(found[to].id);
    close();
  };
  const fill = () => {
    const wanted = fold(search.value.trim());
    const matches = [...near, ...far].filter((other) => fold(other.name).includes(wanted));
    found = wanted ? [...matches, NONE] : [...near, NONE, ...far];
    found = found.slice(0, MOST);
    list.replaceChildren(...found.map((other, i) => make("li",
      { role: "option", id: `choice-${i}`, onclick: () => pick(i) },
      make("kbd", {}, key(other, i, wanted)), make("bdi", {}, other.name),
      other.kind ? chip(other) : null)));
    point(0);
  };
  const key = (other, i, wanted) => {
    if (other === NONE) return wanted ? "" : "0";
    return !wanted && i < Math.min(near.length, 9) ? String(i + 1) : "";
  };
  search.value = "";
  search.oninput = fill;
  search.onkeydown = (event) => {
    if (event.isComposing) return;
    const digit = !search.value && /^\d$/.test(event.key) ? Number(event.key) : null;
    if (digit === 0) pick(found.indexOf(NONE));
    else if (digit && digit <= near.length) pick(digit - 1);
    else if (event.key === "ArrowDown") point(at + 1);
    else if (event.key === "ArrowUp") point(at - 1);
    else if (event.key === "Enter") pick(at);
    else return;
    event.preventDefault();
  };
  fill();
  close = show(dialog, () => resolve(undefined));
  search.focus();
});

// Answers with the text, or undefined if it was not saved.
export const note = (before) => new Promise((resolve) => {
  const [dialog, text] = [byId("note"), byId("note-text")];
  let close;
  const save = () => {
    resolve(text.value.trim());
    close();
  };
  text.value = before;
  text.maxLength = content.longest_note;
  text.onkeydown = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    save();
  };
  byId("note-save").onclick = save;
  byId("note-cancel").onclick = () => close();
  close = show(dialog, () => resolve(undefined));
  text.focus();
});

export const help = () => {
  const dialog = byId("help");
  byId("help-close").onclick = show(dialog);
};
