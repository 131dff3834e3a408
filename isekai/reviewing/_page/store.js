// What the page knows: the dataset, what is decided, and what is shown of it.

export const content = await load();
export const concepts = new Map(); // by id, with the group that it is in
export const pictures = new Map(content.pictures.map((one) => [one.id, one]));
export const states = new Map(content.states.map((one) => [one.id, one]));
let revision = content.revision;
let waiting = Promise.resolve();

for (const group of content.groups) {
  for (const concept of group.concepts) concepts.set(concept.id, { ...concept, group });
}

async function load() {
  const answer = await fetch("content");
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

export const verdict = (id) => {
  const state = states.get(id);
  return state && state.verdict !== "note" ? state.verdict : null;
};
export const note = (id) => states.get(id)?.note ?? "";
export const decided = (id) => verdict(id) !== null;

// What is decided is shown at once, and put right if the server says otherwise.
export const decide = (id, asked) => {
  const before = states.get(id);
  states.set(id, { id, concept: null, note: "", ...asked });
  return send({ image_id: id, ...asked }).catch((error) => {
    if (before) states.set(id, before);
    else states.delete(id);
    throw error;
  });
};

// One request after the other, in the order of the keys.
export const send = (asked) => {
  const answer = waiting.then(() => post({ ...asked, since: revision }));
  waiting = answer.catch(() => {});
  return answer;
};

const post = async (asked) => {
  const answer = await fetch("decisions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(asked),
  }).catch(() => {
    throw new Error("the server has ended: run `isekai review` again");
  });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return take(await answer.json());
};

const take = (told) => {
  revision = Math.max(revision, told.revision);
  for (const one of told.states) states.set(one.id, one);
  return told;
};

// What other tabs have decided; true if there was any. Waits for this tab's own.
export const refresh = async () => {
  await waiting;
  const answer = await fetch(`changes?since=${revision}`);
  if (!answer.ok) throw new Error(await answer.text());
  return take(await answer.json()).states.length > 0;
};

export const SHOWN = {
  all: ["all pictures", () => true],
  undecided: ["undecided", (id) => !decided(id)],
  keep: ["kept", (id) => verdict(id) === "keep"],
  drop: ["dropped", (id) => verdict(id) === "drop"],
  concept: ["wrong concept", (id) => verdict(id) === "concept"],
  note: ["with a note", (id) => note(id) !== ""],
};

// Pictures by filters; a score puts the lowest first, and those without it last.
export const chosen = ({ show, concept, order }) => {
  const found = content.pictures.filter(
    (one) => SHOWN[show][1](one.id) && (!concept || one.concept === concept));
  if (order) {
    const score = (one) => one.scores[order] ?? Infinity;
    found.sort((a, b) => (score(a) < score(b) ? -1 : score(a) > score(b) ? 1 : 0));
  }
  return found;
};
