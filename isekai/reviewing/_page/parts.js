// Pieces of the page. Texts of datasets are put in as text only, never as markup.

import { concepts, note, pictures, states, verdict } from "./store.js";

export const make = (tag, given = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
};

export const many = (number, noun) =>
  `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

export const named = (one) =>
  `${concepts.get(one.concept)?.name ?? one.concept}, picture ${one.index + 1}`;

export const chip = (concept) => make("span", { class: `chip ${concept.kind}` }, concept.kind);

export const SIGNS = { keep: "✓", drop: "✕", concept: "⇄", note: "✎" };

// A picture, or the words that it can't be shown.
export const image = (id, { size = "thumbnail", alt = "", lazy = true } = {}) => {
  const made = make("img", { alt, draggable: "false", decoding: "async" });
  if (lazy) made.loading = "lazy";
  made.addEventListener("error", () => {
    const told = make("span", { class: "broken", role: "img", "aria-label": alt }, "can’t be shown");
    made.replaceWith(told);
  });
  made.src = `${size}/${id}`;
  return made;
};

export const thumb = (one, given = {}) =>
  make("button", { type: "button", class: "thumb", "data-id": one.id, ...given },
    image(one.id, { alt: named(one) }), mark(one.id));

// The sign on a picture of what was decided.
export const mark = (id) => {
  const made = make("span", { class: "mark" });
  remark(made, id);
  return made;
};

export const remark = (made, id) => {
  const said = verdict(id) ?? (note(id) ? "note" : "");
  made.dataset.verdict = said;
  made.textContent = said && said !== "note" && note(id) ? SIGNS[said] + SIGNS.note : SIGNS[said] ?? "";
  made.setAttribute("aria-hidden", "true");
};

export const told = (id) => {
  const said = verdict(id);
  if (said === "keep") return "kept";
  if (said === "drop") return "dropped";
  if (said !== "concept") return "undecided";
  const shows = states.get(id).concept;
  if (shows && shows === pictures.get(id)?.concept) return "moved here"; // by a build that obeyed
  return shows ? `shows ${concepts.get(shows)?.name ?? shows}` : "shows none of these: left out";
};
