// All pictures of the list as tiles, by concept or, where a score orders them, all together.

import { concepts } from "./store.js";
import { chip, make, many, named, remark, thumb, told } from "./parts.js";

export const bind = (section, open) => {
  section.addEventListener("click", (event) => {
    const tile = event.target.closest(".thumb");
    if (tile) open(tile.dataset.id);
  });
  section.addEventListener("focusin", (event) => {
    if (event.target.matches(".thumb")) rove(section, event.target);
  });
};

export const draw = (section, list, order, current) => {
  if (!list.length) {
    section.replaceChildren(make("p", { class: "empty" }, "No picture matches these filters."));
    return;
  }
  section.replaceChildren(...(order ? [scored(list, order)] : byConcept(list)));
  for (const tile of section.querySelectorAll(".thumb")) update(tile);
  const first = section.querySelector(`[data-id="${CSS.escape(current ?? "")}"]`);
  rove(section, first ?? section.querySelector(".thumb"));
};

const byConcept = (list) => {
  const sections = new Map();
  for (const one of list) {
    if (!sections.has(one.concept)) sections.set(one.concept, []);
    sections.get(one.concept).push(one);
  }
  return [...sections].map(([id, found]) => {
    const concept = concepts.get(id);
    return make("article", {},
      make("h2", {}, make("bdi", {}, concept.name), chip(concept),
        make("span", { class: "faint" }, many(found.length, "picture"))),
      make("p", { class: "definition", dir: "auto" }, concept.definition),
      make("div", { class: "tiles" }, ...found.map((one) => tile(one))));
  });
};

const scored = (list, order) =>
  make("article", {},
    make("h2", {}, make("span", {}, "Lowest ", make("bdi", {}, order), " first")),
    make("div", { class: "tiles" }, ...list.map((one) => tile(one, caption(one, order)))));

const caption = (one, order) =>
  make("span", { class: "caption" }, make("bdi", {}, concepts.get(one.concept).name),
    ` ${one.scores[order]?.toFixed(3) ?? "–"}`);

const tile = (one, under = null) => {
  const made = thumb(one, { tabindex: "-1" });
  if (under) made.append(under);
  made.picture = one;
  return made;
};

export const update = (tile) => {
  remark(tile.querySelector(".mark"), tile.dataset.id);
  tile.dataset.verdict = tile.querySelector(".mark").dataset.verdict;
  tile.setAttribute("aria-label", `${named(tile.picture)}, ${told(tile.dataset.id)}`);
};

// One tile is reached with Tab; arrows go on from there.
const rove = (section, tile) => {
  section.querySelector('.thumb[tabindex="0"]')?.setAttribute("tabindex", "-1");
  tile.setAttribute("tabindex", "0");
};

export const current = (section) => section.querySelector('.thumb[tabindex="0"]');

export const move = (section, key) => {
  const tiles = [...section.querySelectorAll(".thumb")];
  const here = tiles.indexOf(current(section));
  const next = key === "ArrowRight" ? here + 1
    : key === "ArrowLeft" ? here - 1
    : line(tiles, here, key === "ArrowDown" ? 1 : -1);
  if (!tiles[next]) return false;
  tiles[next].focus();
  tiles[next].scrollIntoView({ block: "nearest" });
  return true;
};

// The tile that is nearest to straight below or above.
const line = (tiles, here, way) => {
  const from = tiles[here].getBoundingClientRect();
  let best = -1;
  let least = Infinity;
  for (let i = here + way; tiles[i]; i += way) {
    const to = tiles[i].getBoundingClientRect();
    const down = way * (to.top - from.top);
    if (down < from.height / 2) continue;
    const far = 10 * down + Math.abs(to.left - from.left);
    if (far < least) [best, least] = [i, far];
    else if (down > from.height * 4) break;
  }
  return best;
};
