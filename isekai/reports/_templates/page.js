"use strict";
// Draws the wrong answers a page at a time. Texts are put in as text only, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const form = document.getElementById("filters");
  const list = document.getElementById("list");
  const pagers = [...document.querySelectorAll(".pager")];
  const PAGE = 20;
  const SAID = { wrong: "wrong", abstain: "abstains", failed: "failed" };
  let found = [];
  let start = 0;

  const many = (number) => number.toLocaleString("en");
  const text = (number) => data.texts[number];
  const make = (tag, classes = "", ...children) => {
    const made = document.createElement(tag);
    if (classes) made.className = classes;
    made.append(...children);
    return made;
  };
  const isolated = (words) => make("bdi", "", words);

  const picture = (number, shown, alt) => {
    if (shown === 1) return make("div", "picture grey", "grey");
    if (shown === 2) return make("div", "picture nothing", "no picture");
    if (!data.pictures[number]) return make("div", "picture nothing", "cannot be decoded");
    const image = make("img", "picture");
    image.src = data.pictures[number];
    image.alt = alt;
    return image;
  };
  const word = (number, words, isFalse) => {
    const place = words.indexOf(number);
    const classes = `word ${place < 0 ? "" : `w${place % 6}`} ${isFalse ? "false" : ""}`;
    const made = make("bdi", classes, text(number));
    if (isFalse) made.title = "a false label: the picture shows another thing";
    return made;
  };
  const example = (tag, [number, name, shown, isFalse], words) => {
    const caption = make("figcaption", "", word(name, words, isFalse));
    return make(tag, "", make("figure", "", picture(number, shown, text(name)), caption));
  };

  const answer = (one, words) => {
    const line = make("div", "", make("span", `outcome ${one.outcome}`, SAID[one.outcome]),
      make("b", "", isolated(text(one.model))));
    const bare = "answer" in one && one.text === text(one.answer);
    if ("answer" in one) {
      line.append(bare ? " said " : " answered ", word(one.answer, words, 0));
    }
    if (one.scores) {
      const scores = one.scores.map(([label, value]) => `${label} ${value}`).join(", ");
      line.append(" ", make("span", "faint", "(log-likelihoods: ", isolated(scores), ")"));
    }
    if (one.finish) line.append(" ", make("span", "faint", "(ended by: ", isolated(one.finish), ")"));
    const made = make("li", "", line);
    for (const said of [one.error, bare ? undefined : one.text]) {
      if (said === undefined) continue;
      const block = make("div", "said", said);
      block.dir = "auto";
      block.tabIndex = 0;
      made.append(block);
    }
    if (one.text === undefined && one.error === undefined) {
      made.append(make("div", "none", "said nothing"));
    }
    return made;
  };

  const card = (question) => {
    const episode = data.episodes[question.episode];
    const head = make("h3", "", make("b", "", isolated(text(episode.task))));
    const control = text(episode.control);
    head.append(make("span", "", isolated(control === "none" ? "plain" : control)),
      make("span", "", `${question.shots} ${question.shots === 1 ? "shot" : "shots"}`),
      make("span", "", isolated(episode.id)));
    const [number, , shown] = question.query;
    const caption = make("figcaption", "", "right is ", word(question.target, episode.words, 0),
      make("div", "faint", isolated(text(question.shows))));
    const query = make("figure", "query", make("h4", "", "asked"),
      picture(number, shown, "the query"), caption);
    const shownBefore = episode.support.slice(0, question.cut);
    const falseOnes = shownBefore.some((one) => one[3]) ? "; false labels are underlined" : "";
    const support = make("div", "", make("h4", "", `shown before, in this order${falseOnes}`));
    if (question.cut) {
      support.append(make("ol", "support",
        ...shownBefore.map((one) => example("li", one, episode.words))));
    } else {
      support.append(make("div", "none", "no support set"));
    }
    const wrong = question.answers.filter((one) => one.outcome !== "correct");
    const right = question.answers.filter((one) => one.outcome === "correct");
    const answers = make("ul", "answers", ...wrong.map((one) => answer(one, episode.words)));
    if (right.length) {
      const names = right.map((one) => text(one.model)).join(", ");
      answers.append(make("li", "right", "right: ", isolated(names)));
    }
    support.append(answers);
    return make("article", "question", head, make("div", "asked", query, support));
  };

  const fits = (question, wanted) => {
    const episode = data.episodes[question.episode];
    if (wanted.task && text(episode.task) !== wanted.task) return false;
    if (wanted.control && text(episode.control) !== wanted.control) return false;
    if (wanted.shots && String(question.shots) !== wanted.shots) return false;
    return question.answers.some((one) =>
      wanted.outcomes.has(one.outcome)
      && (!wanted.model || text(one.model) === wanted.model)
      && (!wanted.text || [one.text, one.error].some(
        (said) => said !== undefined && said.toLowerCase().includes(wanted.text))));
  };

  const draw = () => {
    const end = Math.min(start + PAGE, found.length);
    list.replaceChildren(...found.slice(start, end).map(card));
    for (const pager of pagers) {
      pager.querySelector("output").textContent = found.length
        ? `questions ${many(start + 1)}–${many(end)} of ${many(found.length)}`
        : "no question fits";
      pager.querySelector("[data-step='-1']").disabled = start === 0;
      pager.querySelector("[data-step='1']").disabled = end === found.length;
    }
  };

  const filter = () => {
    const fields = new FormData(form);
    const wanted = {
      model: fields.get("model"), task: fields.get("task"), control: fields.get("control"),
      shots: fields.get("shots"), outcomes: new Set(fields.getAll("outcome")),
      text: fields.get("text").toLowerCase(),
    };
    found = data.questions.filter((question) => fits(question, wanted));
    start = 0;
    draw();
  };

  const choices = (name, values) => {
    const select = form.elements.namedItem(name);
    select.append(new Option("all", ""));
    for (const value of values) {
      select.append(new Option(name === "control" && value === "none" ? "plain" : value, value));
    }
  };
  const unique = (values) => [...new Set(values)];
  const episodes = data.questions.map((question) => data.episodes[question.episode]);
  choices("model", unique(data.questions.flatMap((q) => q.answers.map((one) => text(one.model)))));
  choices("task", unique(episodes.map((episode) => text(episode.task))));
  choices("control", unique(episodes.map((episode) => text(episode.control))));
  choices("shots", unique(data.questions.map((q) => q.shots)).sort((a, b) => a - b).map(String));

  form.hidden = false;
  for (const pager of pagers) {
    pager.hidden = false;
    pager.addEventListener("click", (event) => {
      const step = Number(event.target.dataset.step ?? 0);
      if (!step) return;
      start += step * PAGE;
      draw();
      if (pager === pagers[1]) pagers[0].scrollIntoView();
    });
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", filter);
  filter();
})();
