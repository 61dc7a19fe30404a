// The attempts of one terminal, the newest first: when each stage began, and how long it took.
import { $, date, hide, make, time, wanted } from "./tools.js";
import { lang, w } from "./words.js";

// What is asked of the server once for each terminal and outcome: the running attempt comes with the terminal.
let past = [],
  asked = "";

async function ask(t) {
  const key = [t.id, t.attempt && t.attempt.number, !!t.outcome].join();
  if (key === asked) return;
  asked = key;
  try {
    const query = "?limit=10&terminal=" + encodeURIComponent(t.id);
    const answer = await fetch("/api/v1/attempts" + query, { signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error();
    const told = await answer.json();
    if (asked === key) past = told;
  } catch {
    if (asked === key) asked = "";
  }
}
const clock = at =>
  new Date(at).toLocaleTimeString(lang === "zh" ? "zh-CN" : undefined, { timeStyle: "medium" });
// The newest attempt as of now, and those before it as they ended.
function attempts(t) {
  if (!t.attempt) return [];
  const others = past.filter(one => one.terminal === t.id && one.number !== t.attempt.number);
  return [{ ...t.attempt, outcome: t.outcome }, ...others];
}
function ending(a) {
  if (a.cancelled) return w("cancelled");
  return a.outcome ? w(a.outcome.result) : "…";
}
function bar(a, parent) {
  const strip = make("div", "strip", parent);
  strip.setAttribute("aria-hidden", "true");
  a.stages.forEach((one, n) => {
    const failed = a.outcome && a.outcome.result === "failed" && n === a.stages.length - 1;
    const part = make("i", failed ? "failed" : n % 2 ? "planned" : "imaging", strip);
    part.style.flexGrow = one.seconds;
    part.title = w(one.stage) + ": " + time(one.seconds);
  });
}
function makeAttempt(a, latest) {
  const box = make("details", "attempt");
  box.open = latest;
  const head = [w("history", a.number), w("job", a.job), a.images, date(a.started), ending(a)];
  make("summary", "", box, head.join(", "));
  if (a.outcome && a.outcome.failure)
    make("p", "why", box, a.outcome.failure.message + ". " + a.outcome.failure.advice);
  if (a.stages.length) bar(a, box);
  else make("p", "soft", box, w("no_stages"));
  const list = make("ol", "stages", box);
  for (const one of a.stages) {
    const line = make("li", "", list);
    make("span", "", line, w(one.stage));
    make("time", "soft", line, clock(one.began)).dateTime = one.began;
    make("span", "num", line, time(one.seconds));
  }
  make("a", "", box, w("log")).href = "/api/v1/attempts/" + a.number + "/log";
  return box;
}
// An attempt is made again only when it changed, so that an open one stays open.
export async function show(t) {
  const box = $("attempts");
  if (!t || !t.attempt) return hide(box, true);
  await ask(t);
  if ($("one").dataset.id !== t.id || !wanted().terminal) return;
  const all = attempts(t);
  const known = new Map([...box.children].map(node => [node.dataset.number, node]));
  all.forEach((a, n) => {
    const key = JSON.stringify([lang, a.stages, a.outcome, a.cancelled, n]),
      old = known.get(String(a.number));
    let node = old;
    if (!old || old.dataset.key !== key) {
      node = makeAttempt(a, n === 0);
      if (old && old.dataset.of === t.id) node.open = old.open;
      node.dataset.key = key;
      node.dataset.number = a.number;
      node.dataset.of = t.id;
      if (old) old.replaceWith(node);
    }
    if (box.children[n] !== node) box.insertBefore(node, box.children[n] || null);
  });
  while (box.children.length > all.length) box.lastChild.remove();
  hide(box, false);
}
