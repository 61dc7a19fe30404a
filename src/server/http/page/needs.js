// What needs a person first: problems, then terminals with one state and reason together.
import { $, button, cls, hide, href, make, text, wanted } from "./tools.js";
import { w } from "./words.js";
import { NEEDS, SIGNS, byName, failure, fits, lab, nameOf, reasonOf } from "./lab.js";
import { actOnAll } from "./act.js";

// Names in one line of the list, and in a lab that shows small cells.
const MOST_NAMES = 12,
  FEW_NAMES = 3,
  LARGE_LAB = 150;
let drawn = "";

function advice(t) {
  const f = failure(t);
  if (f) return f.advice + (t.outcome.disk_touched ? " " + w("half") : "");
  const found = t.state === "failed" && t.outcome && t.outcome.findings;
  if (found && found.length) return found[0].advice;
  return t.state === "interrupted" ? w("go_on") : "";
}
function entries() {
  const filter = wanted(),
    all = new Map();
  const add = (state, why, what, t) => {
    const key = state + "\n" + why;
    if (!all.has(key)) all.set(key, { state, why, what, members: [] });
    all.get(key).members.push(t);
  };
  for (const t of lab.terminals.values()) {
    if (!fits(t, filter, false)) continue;
    if (NEEDS.includes(t.state))
      add(t.state, reasonOf(t) || (t.state === "interrupted" ? w("silent") : ""), advice(t), t);
    else if (t.new) add("new", w("new_terminals"), "", t);
  }
  const order = state => (state === "new" ? NEEDS.length : NEEDS.indexOf(state));
  return [...all.values()].sort(
    (a, b) => order(a.state) - order(b.state) || b.members.length - a.members.length,
  );
}

export function show() {
  const all = entries(),
    problems = lab.rest ? lab.rest.problems : [];
  const now = JSON.stringify([
    document.documentElement.lang,
    location.hash,
    problems,
    all.map(e => [e.state, e.why, e.what, e.members.map(t => [t.id, t.label])]),
  ]);
  if (now === drawn) return;
  drawn = now;
  const list = $("needs");
  list.replaceChildren();
  cls(list, lab.terminals.size > LARGE_LAB ? "dense" : "");
  for (const p of problems) {
    const item = make("li", "need problem", list);
    make("b", "badge", item, w("problem"));
    make("span", "why", item, p.what + ": " + p.error);
    make("span", "soft", item, p.advice);
  }
  for (const entry of all) list.append(need(entry));
  hide($("calm"), list.children.length > 0 || lab.terminals.size === 0);
  text(
    $("needcount"),
    list.children.length ? String(all.reduce((n, e) => n + e.members.length, problems.length)) : "",
  );
}
function need({ state, why, what, members }) {
  const item = make("li", "need");
  cls(item, "need " + state);
  const badge = make("b", "badge", item);
  make("span", "", badge, (SIGNS[state] || "+") + " ").setAttribute("aria-hidden", "true");
  badge.append((members.length > 1 ? members.length + " " : "") + w(state));
  if (why) make("span", "why", item, why);
  if (what) make("span", "soft", item, what).title = what;
  const names = make("span", "names", item);
  members.sort(byName);
  const most = lab.terminals.size > LARGE_LAB ? FEW_NAMES : MOST_NAMES;
  for (const t of members.slice(0, most)) {
    const link = make(
      "a",
      "",
      names,
      nameOf(t) + (t.room && t.seat ? " (" + t.room + " " + t.seat + ")" : ""),
    );
    link.href = href({ terminal: t.id });
  }
  if (members.length > most) {
    const more = make("a", "", names, w("more", members.length - most));
    more.href = href({ view: "list", state });
  }
  const action = state === "failed" || state === "missed" ? "retry" : state === "asleep" ? "wake" : null;
  if (action) button(w(action), item, () => actOnAll(action, members)).classList.add("do");
  return item;
}
