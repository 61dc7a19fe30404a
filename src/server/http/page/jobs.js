// Jobs: the list, the report of one, and a new one, which is tried before it is created.
import { $, button, date, hide, href, make, text, time, wanted } from "./tools.js";
import { w } from "./words.js";
import { SIGNS, lab } from "./lab.js";
import { actOnJob, call, say } from "./act.js";

// A job's own words for its terminals' states, in the order of a bar.
const ORDER = ["done", "running", "waiting", "asleep", "missed", "cancelled", "failed"];
const COLOUR = { running: "imaging" };
let plan = null;

function counts(job) {
  const bar = make("div", "counts");
  const all = Object.values(job.counts).reduce((n, m) => n + m, 0);
  const parts = ORDER.filter(state => job.counts[state]);
  const strip = make("div", "strip", bar);
  strip.setAttribute("aria-hidden", "true");
  for (const state of parts) {
    const part = make("i", COLOUR[state] || state, strip);
    part.style.flexGrow = job.counts[state];
  }
  make("span", "", bar, w("of", job.counts.done || 0, all));
  const others = parts.filter(state => state !== "done").map(state => job.counts[state] + " " + w(state));
  if (others.length) make("span", "soft", bar, " " + others.join(", "));
  return bar;
}
function forecast(job) {
  const left = [...lab.terminals.values()]
    .filter(t => t.job === job.number && t.state === "imaging" && t.progress)
    .map(t => t.progress.seconds_left)
    .filter(s => s !== null && s !== undefined);
  return (
    [job.needs ? w("each", time(job.needs)) : "", left.length ? w("end_in", time(Math.max(...left))) : ""]
      .filter(Boolean)
      .join("; ") || "–"
  );
}
function pairs(job) {
  const window = date(job.opens) + " – " + date(job.closes);
  const calendar = [
    job.again_until && w("again_until", date(job.again_until)),
    job.every && w("every", job.every),
    job.next && w("next", date(job.next)),
    job.wave && w("wave", job.wave),
  ];
  return [
    ["phase", w(job.cancelled ? "cancelled" : job.phase)],
    ["targets", job.targets.join(" ")],
    ["window", [window, ...calendar].filter(Boolean).join("; ")],
    ["limit", job.limit_mbit && w("limit_each", job.limit_mbit)],
    ["forecast", forecast(job)],
    ["by", job.by + ", " + date(job.created)],
    ["note", job.note],
  ];
}
function facts(parent, all) {
  const list = make("dl", "facts", parent);
  for (const [name, value] of all) {
    if (!value) continue;
    const line = make("div", "", list);
    make("dt", "", line, w(name));
    make("dd", name === "forecast" ? name : "", line, value);
  }
}
function actions(job, parent) {
  const over = job.phase === "over" && !job.next;
  const line = make("div", "actions", parent);
  if (!over) button(w("cancel"), line, () => actOnJob("cancel", job.number));
  if (ORDER.slice(3).some(state => job.counts[state]))
    button(w("retry"), line, () => actOnJob("retry", job.number));
  return line;
}
function makeCard(job) {
  const card = make("li", "card"),
    title = make("h3", "", card);
  const link = make("a", "", title, w("job", job.number));
  link.href = href({ job: String(job.number), terminal: "" });
  title.append(" " + job.images);
  card.append(counts(job));
  facts(card, pairs(job));
  make("a", "", actions(job, card), w("report")).href = link.href;
  return card;
}
// A card is made again only when its job changed, so that its buttons stay where they are.
const cards = new Map();
export function show() {
  const all = [...lab.jobs.values()].sort((a, b) => b.number - a.number);
  const list = $("joblist"),
    numbers = new Set(all.map(job => job.number));
  for (const [number, { card }] of cards)
    if (!numbers.has(number)) {
      card.remove();
      cards.delete(number);
    }
  let place = list.firstChild;
  for (const job of all) {
    const key = document.documentElement.lang + location.hash + JSON.stringify(job),
      known = cards.get(job.number);
    if (!known || known.key !== key) {
      const card = makeCard(job);
      if (known) {
        if (place === known.card) place = card;
        known.card.replaceWith(card);
      }
      cards.set(job.number, { card, key });
    }
    const { card } = cards.get(job.number);
    text(card.querySelector(".forecast"), forecast(job));
    if (place === card) place = card.nextSibling;
    else list.insertBefore(card, place);
  }
  hide($("nojobs"), all.length > 0);
}

// The report of the job that the address names.
export async function showReport() {
  const number = wanted().job,
    box = $("report");
  if (!number) return hide(box, true);
  let told;
  try {
    const answer = await fetch("/api/v1/jobs/" + encodeURIComponent(number), {
      signal: AbortSignal.timeout(10000),
    });
    told = await answer.json();
    if (!answer.ok) throw new Error(told.error + ". " + told.advice);
  } catch (error) {
    told = { error: error.message };
  }
  if (wanted().job !== number) return;
  const was = box.hidden,
    title = reportHead(box, number, told),
    body = box.lastChild;
  body.replaceChildren();
  if (!told.error) {
    body.append(counts(told.job));
    facts(body, pairs(told.job));
    body.append(members(told.terminals));
  }
  hide(box, false);
  if (was) {
    box.scrollIntoView({ block: "nearest" });
    title.focus({ preventScroll: true });
  }
}
// The head with its buttons stays as long as they fit.
function reportHead(box, number, told) {
  const job = told.job,
    kind = job && [job.images, job.phase, job.next, ORDER.slice(3).some(state => job.counts[state])];
  const key = JSON.stringify([document.documentElement.lang, location.hash, told.error, kind]);
  if (box.dataset.key === key) return box.firstChild;
  box.dataset.key = key;
  box.replaceChildren();
  const title = make("h2", "", box, told.error || w("report_of", number) + ": " + job.images);
  title.id = "reportname";
  title.tabIndex = -1;
  const line = told.error ? make("div", "actions", box) : actions(job, box);
  if (!told.error) {
    button(w("print"), line, () => print());
    make("a", "", line, w("csv")).href = "/api/v1/jobs/" + number + "/report.csv";
  }
  make("a", "close", line, w("close")).href = href({ job: "" });
  make("div", "", box);
  return title;
}
function members(all) {
  const table = make("table", "cards"),
    line = make("tr", "", make("thead", "", table)),
    body = make("tbody", "", table);
  const columns = ["terminal", "place", "state", "reason", "attempts", "since"];
  for (const column of columns) make("th", "", line, w(column)).scope = "col";
  for (const one of all) {
    const t = lab.terminals.get(one.terminal),
      colour = COLOUR[one.state] || one.state;
    const tr = make("tr", colour, body);
    const place = t ? [t.room && w("room", t.room), t.seat].filter(Boolean).join(" ") : "";
    const values = [
      one.label || one.terminal,
      place,
      (SIGNS[colour] || "") + " " + w(one.state),
      one.reason || one.system || "",
      String(one.tries),
      date(one.since),
    ];
    values.forEach((value, n) => {
      make(n ? "td" : "th", n === 2 ? "word" : "", tr, value).dataset.head = w(columns[n]);
    });
    tr.firstChild.scope = "row";
  }
  return table;
}

function order() {
  const field = name => $("new-" + name).value.trim();
  const order = {
    image: field("image"),
    targets: field("targets")
      .split(/[\s,]+/)
      .filter(Boolean),
    wake: $("new-wake").checked,
    note: field("note"),
  };
  for (const name of ["at", "until"]) if (field(name)) order[name] = field(name);
  for (const name of ["wave", "limit_mbit"]) if (field(name)) order[name] = Number(field(name));
  return order;
}
function forget() {
  plan = null;
  $("plan").replaceChildren();
}
export function images() {
  const names = (lab.rest ? lab.rest.images : []).map(image => image.name + "@" + image.version);
  const choice = $("new-image"),
    chosen = choice.value;
  choice.replaceChildren(
    ...names.map(name => {
      const option = make("option", "", null, name);
      option.value = name;
      return option;
    }),
  );
  if (names.includes(chosen)) choice.value = chosen;
}
$("newjob").oninput = forget;
$("newjob").onsubmit = async event => {
  event.preventDefault();
  const wish = order();
  say("");
  const told = await call("POST", "/api/v1/jobs", { ...wish, dry_run: true });
  if (!told) return;
  plan = wish;
  const box = $("plan");
  box.replaceChildren();
  facts(box, [
    ["image", told.images],
    ["window", told.window],
    ["forecast", w("each", time(told.needs)) + "; " + w("plan_all", time(told.all))],
  ]);
  if (told.findings.length) make("h3", "", box, w("findings"));
  const findings = make("ul", "", box);
  for (const one of told.findings)
    make("li", "", findings, [one.terminal, one.error].filter(Boolean).join(": ") + ". " + one.advice);
  const affected = make("details", "", box);
  make("summary", "", affected, told.terminals.length + " " + w("terminals") + ", " + w("loses"));
  const list = make("ul", "", affected);
  for (const one of told.terminals) make("li", "", list, (one.label || one.id) + ": " + one.loses);
  button(w("do_create", told.terminals.length), box, create).id = "create";
};
async function create() {
  const told = plan && (await call("POST", "/api/v1/jobs", plan));
  if (!told) return;
  forget();
  say(w("ok_done", w("job", told.number)));
  show();
}
