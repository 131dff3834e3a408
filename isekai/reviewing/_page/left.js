// What the build left out and why, beside what stays in its place.

import { concepts, content, note, verdict } from "./store.js";
import { image, make, SIGNS, told } from "./parts.js";

export const draw = (section, concept) => {
  const found = content.left_out.filter((one) => !concept || one.concept === concept);
  if (!found.length) {
    section.replaceChildren(make("p", { class: "empty" }, "Nothing was left out."));
    return;
  }
  const blind = found.some((one) => one.id && !one.shown);
  section.replaceChildren(
    make("p", { class: "lead" }, blind
      ? "What the build left out. Give --images, the folder it was built from, to see all of it and keep some after all."
      : "What the build left out. A picture that is kept here is in the next build."),
    ...found.map(row));
};

const row = (one) => {
  const name = concepts.get(one.concept)?.name ?? one.concept;
  const alt = `${name}, left out`;
  const made = make("article", { class: "out", tabindex: one.shown ? "0" : null,
    "aria-label": `${alt}: ${one.reason}` },
    make("div", { class: "pair" },
      one.shown ? image(one.id, { alt }) : make("span", { class: "broken" }, one.id ? "not at hand" : "not drawn"),
      one.other_id ? image(one.other_id, { alt: `${name}, stays in its place` }) : null),
    make("div", { class: "why" },
      make("h3", {}, make("bdi", {}, name)),
      make("p", { dir: "auto" }, one.reason),
      one.path ? make("p", { class: "faint" }, make("bdi", {}, one.path),
        ...(one.other ? [" – stays: ", make("bdi", {}, one.other)] : [])) : null,
      make("p", { class: "said" }),
      make("div", { class: "buttons" },
        one.shown ? make("button", { type: "button", "data-act": "keep" }, "Keep after all ",
          make("kbd", {}, "K")) : null,
        one.shown ? make("button", { type: "button", "data-act": "drop" }, "Drop for good ",
          make("kbd", {}, "D")) : null,
        make("button", { type: "button", "data-act": "back" }, "Take back"))));
  made.dataset.id = one.id ?? "";
  update(made);
  return made;
};

export const update = (made) => {
  const id = made.dataset.id;
  const said = verdict(id);
  made.dataset.verdict = said ?? "";
  made.querySelector(".said").textContent =
    said ? `${SIGNS[said]} ${said === "keep" ? "kept after all" : told(id)}${note(id) ? `: ${note(id)}` : ""}` : "";
  made.querySelector('[data-act="back"]').hidden = !said;
};
