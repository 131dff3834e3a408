// One picture at a time, with what it should show and what it could be taken for.

import { content, concepts, note, verdict } from "./store.js";
import { chip, image, make, named, SIGNS, thumb, told } from "./parts.js";

const BESIDE = 8;
const byConcept = new Map([...concepts.keys()].map((id) => [id, []]));
for (const one of content.pictures) byConcept.get(one.concept)?.push(one);

export const draw = (section, list, at, open) => {
  const one = list[at];
  if (!one) {
    section.replaceChildren(make("p", { class: "empty" }, "No picture matches these filters."));
    return;
  }
  const concept = concepts.get(one.concept);
  const stage = make("figure", { class: "stage" },
    image(one.id, { size: "picture", alt: named(one), lazy: false }),
    make("figcaption", { class: "verdict" }));
  section.replaceChildren(
    make("div", { class: "left" }, heading(one, concept, list, at, open), stage),
    make("aside", { "aria-label": "Beside it" }, ...beside(one, concept, open), facts(one)));
  update(section, one);
  for (const next of [list[at + 1], list[at - 1]]) {
    if (next) new Image().src = `picture/${next.id}`;
  }
};

export const update = (section, one) => {
  const stage = section.querySelector(".stage");
  if (!one || !stage) return;
  const said = verdict(one.id);
  stage.dataset.verdict = said ?? "";
  const words = [];
  if (said) words.push(make("span", { class: "said" }, `${SIGNS[said]} `, make("bdi", {}, told(one.id))));
  if (note(one.id)) {
    words.push(make("span", { class: "noted" }, `${SIGNS.note} `, make("bdi", {}, note(one.id))));
  }
  stage.querySelector("figcaption").replaceChildren(...words);
};

const heading = (one, concept, list, at, open) =>
  make("div", { class: "heading" },
    make("div", { class: "where" },
      make("button", { type: "button", "aria-label": "Previous picture", disabled: at === 0,
        onclick: () => open(at - 1) }, "←"),
      make("span", { id: "place" }, `${at + 1} of ${list.length}`),
      make("button", { type: "button", "aria-label": "Next picture",
        disabled: at === list.length - 1, onclick: () => open(at + 1) }, "→")),
    make("h2", {}, make("bdi", {}, concept.name), chip(concept)),
    make("p", { class: "definition", dir: "auto" }, concept.definition),
    make("ul", { class: "scores", "aria-label": "Scores" },
      ...Object.entries(one.scores).map(([name, value]) =>
        make("li", {}, make("bdi", {}, name), " ", make("b", {}, value.toFixed(3))))));

const beside = (one, concept, open) => {
  const others = concept.group.concepts.filter((other) => other.id !== concept.id);
  const own = (byConcept.get(concept.id) ?? []).filter((other) => other.id !== one.id);
  return [
    make("h3", { class: "label" }, "Others of ", make("bdi", {}, concept.name)),
    strip(own, open),
    make("h3", { class: "label" }, others.length ? "Not to be taken for" : ""),
    ...others.map((other) => make("div", { class: "rival" },
      make("h4", {}, make("bdi", {}, other.name), chip(other)),
      make("p", { class: "definition", dir: "auto" }, other.definition),
      strip(byConcept.get(other.id) ?? [], open, 4))),
  ];
};

const strip = (found, open, most = BESIDE) => {
  if (!found.length) return make("p", { class: "faint" }, "no others");
  const shown = found.slice(0, most);
  return make("div", { class: "strip" },
    ...shown.map((one) => thumb(one, { title: told(one.id), onclick: () => open(one.id) })));
};

const facts = (one) => {
  const rows = [["split", one.split]];
  if (one.prompt) rows.push(["prompt", one.prompt]);
  return make("dl", { class: "facts" },
    ...rows.map(([name, value]) => make("div", {}, make("dt", {}, make("bdi", {}, name)),
      make("dd", { dir: "auto" }, value))));
};
