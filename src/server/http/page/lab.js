// The lab as the server last told it, and the question for news.
import { natural, wanted } from "./tools.js";

export const STATES = [
  "failed",
  "interrupted",
  "asleep",
  "missed",
  "cancelled",
  "imaging",
  "waiting",
  "planned",
  "done",
  "idle",
];
export const NEEDS = ["failed", "interrupted", "asleep", "missed"];
// A letter or sign beside each colour.
export const SIGNS = {
  failed: "✕",
  interrupted: "!",
  asleep: "z",
  missed: "◷",
  cancelled: "⊘",
  imaging: "▸",
  waiting: "…",
  planned: "◔",
  done: "✓",
  idle: "·",
};

export const lab = { terminals: new Map(), jobs: new Map(), rest: null, version: null };

// Both have the row's own fields and those that change each second.
function put(map, entry) {
  const known = map.get(entry.id);
  if (entry.row) map.set(entry.id, { ...known, ...entry.row, ...entry.live });
  else if (known) Object.assign(known, entry.live);
}

// Takes an answer of /api/v1/changes; returns the names of the terminals that changed.
function take(news) {
  const changed = new Set(news.terminals.map(entry => entry.id));
  if (news.full) {
    for (const id of lab.terminals.keys()) changed.add(id);
    lab.terminals.clear();
    lab.jobs.clear();
  }
  for (const entry of news.terminals) put(lab.terminals, entry);
  for (const entry of news.jobs) put(lab.jobs, entry);
  for (const id of news.gone_terminals) {
    lab.terminals.delete(id);
    changed.add(id);
  }
  for (const id of news.gone_jobs) lab.jobs.delete(id);
  if (news.lab) lab.rest = news.lab;
  lab.version = news.version;
  return changed;
}

// Asks again and again; the server answers when there is news. A page that nobody sees asks nothing.
export async function follow(show, lost) {
  for (;;) {
    if (document.hidden)
      await new Promise(seen => document.addEventListener("visibilitychange", seen, { once: true }));
    const began = performance.now();
    let news = null;
    try {
      const since = lab.version ? "?wait=10&since=" + encodeURIComponent(lab.version) : "";
      const answer = await fetch("/api/v1/changes" + since, {
        cache: "no-store",
        signal: AbortSignal.timeout(20000),
      });
      if (!answer.ok) throw new Error("answered " + answer.status);
      news = await answer.json();
    } catch {
      lost();
    }
    if (news) {
      const jobs = news.full || news.jobs.length > 0 || news.gone_jobs.length > 0;
      try {
        show(take(news), { jobs, lab: !!news.lab });
      } catch (error) {
        console.error(error);
      }
    }
    const rest = 1000 - (performance.now() - began);
    if (rest > 0) await new Promise(over => setTimeout(over, rest));
  }
}

export const nameOf = t => t.label || t.macs[0] || t.uuid || t.id;
export const failure = t =>
  t.state === "failed" && t.outcome && t.outcome.result === "failed" ? t.outcome.failure : null;
export function reasonOf(t) {
  const f = failure(t);
  return t.capture || (f ? f.message : t.reason || "");
}

// Digits of a MAC address are no decimal numbers: 9a comes behind 10.
export function byName(a, b) {
  return (
    !a.label - !b.label ||
    (a.label ? natural.compare(a.label, b.label) : 0) ||
    (nameOf(a) < nameOf(b) ? -1 : nameOf(a) > nameOf(b) ? 1 : a.id < b.id ? -1 : 1)
  );
}

// Does the terminal fit the address's room and words, and its state if `state` matters?
export function fits(t, filter, state = true) {
  if (filter.room && t.room !== filter.room) return false;
  if (state && filter.state && (filter.state === "new" ? !t.new : t.state !== filter.state)) return false;
  if (!filter.q) return true;
  const all = [
    t.label,
    t.id,
    ...t.macs,
    t.uuid,
    t.address,
    t.room,
    t.seat,
    ...t.groups,
    t.hostname,
    t.machine,
    t.image,
    t.zone,
    t.switch,
    t.state,
    reasonOf(t),
  ];
  const hay = all.filter(Boolean).join("\n").toLowerCase();
  return filter.q
    .toLowerCase()
    .split(/\s+/)
    .every(word => hay.includes(word));
}
export function chosen() {
  const filter = wanted();
  return [...lab.terminals.values()].filter(t => fits(t, filter));
}
