// All terminals as a table, those that need a person first; below 600 pixels each row is a card.
import { $, attr, bytes, cls, hide, href, make, percent, rate, text, time } from "./tools.js";
import { w } from "./words.js";
import { SIGNS, STATES, byName, chosen, lab, nameOf, reasonOf } from "./lab.js";

const COLUMNS = [
  "terminal",
  "state",
  "progress",
  "reason",
  "image",
  "in",
  "out",
  "peers",
  "time_left",
  "place",
];
const NUMBERS = ["in", "out", "peers", "time_left"];
const rows = new Map();
// Of thousands of rows most are far from the window: these follow when they come near, or change their place.
const sight = new IntersectionObserver(
  entries => {
    for (const { target, isIntersecting } of entries) {
      const row = rows.get(target.dataset.id),
        t = lab.terminals.get(target.dataset.id);
      if (!row) continue;
      row.far = !isIntersecting;
      if (t && row.late) fill(row, t);
    }
  },
  { rootMargin: "1000px" },
);

function makeRow(t) {
  const tr = make("tr"),
    row = { tr };
  for (const column of COLUMNS) {
    const cell = make(column === "terminal" ? "th" : "td", NUMBERS.includes(column) ? "num" : column, tr);
    if (column === "terminal") cell.scope = "row";
    row[column] = cell;
  }
  row.name = make("a", "name", row.terminal);
  row.mac = make("div", "small mono", row.terminal);
  row.notes = make("div", "small notes", row.terminal);
  row.badge = make("span", "badge", row.state);
  row.track = make("div", "track", row.progress);
  row.fill = make("i", "fill", row.track);
  row.track.setAttribute("role", "progressbar");
  row.stage = make("div", "small", row.progress);
  row.seat = make("span", "", row.place);
  row.zone = make("div", "small", row.place);
  rows.set(t.id, row);
  tr.dataset.id = t.id;
  sight.observe(tr);
  return row;
}
function follow(row, t) {
  if (row.far && row.seen === t.state) row.late = true;
  else fill(row, t);
}
function fill(row, t) {
  row.late = false;
  row.seen = t.state;
  const p = t.progress,
    imaging = t.state === "imaging";
  const live = p && (imaging || (t.state === "done" && p.stage === "serve"));
  const done = t.state === "done" ? 100 : p ? p.percent : 0;
  const mac = t.macs[0] || t.uuid || t.id;
  cls(row.tr, t.state);
  text(row.name, nameOf(t));
  attr(row.name, "href", href({ terminal: t.id }));
  text(row.mac, t.label ? mac : "");
  text(row.notes, t.notes.join("; "));
  text(row.badge, (SIGNS[t.state] || "") + " " + w(t.state) + (t.new ? " (" + w("new") + ")" : ""));
  hide(row.track, !p && t.state !== "done");
  const scale = "scaleX(" + (done / 100).toFixed(3) + ")";
  if (row.scale !== scale) {
    row.fill.style.transform = row.scale = scale;
    attr(row.track, "aria-valuenow", String(Math.floor(done)));
    attr(row.track, "aria-label", nameOf(t));
  }
  text(
    row.stage,
    !p
      ? ""
      : [
          percent(done),
          imaging || t.state === "interrupted" ? w(p.stage) : "",
          imaging && p.stage === "fetch" ? bytes(p.bytes_done) + " / " + bytes(p.bytes_total) : "",
        ]
          .filter(Boolean)
          .join(", "),
  );
  const found = (t.outcome && t.outcome.findings) || [];
  const warnings = found.length
    ? found.map(one => one.what)
    : (t.state === "done" && t.outcome && t.outcome.warnings) || [];
  const system = t.state === "done" ? t.system : "";
  text(row.reason, reasonOf(t) || warnings.map(one => w("warning") + ": " + one).join("; ") || system || "");
  text(row.image, t.image || "");
  text(row.in, live ? rate(p.rate_in) : "");
  text(row.out, live ? rate(p.rate_out) : "");
  text(row.peers, live ? String(p.peers) : "");
  text(row.time_left, imaging && p ? time(p.seconds_left) : "");
  text(
    row.seat,
    [t.room && w("room", t.room), t.seat].filter(Boolean).join(" ") || t.switch || t.address || "",
  );
  text(
    row.zone,
    [t.zone && w("zone") + " " + t.zone, t.gateway && w("gateway")].filter(Boolean).join(", "),
  );
}
export function head() {
  const line = $("listhead");
  line.replaceChildren();
  for (const column of COLUMNS)
    make("th", NUMBERS.includes(column) ? "num" : "", line, w(column)).scope = "col";
  for (const row of rows.values()) for (const column of COLUMNS) row[column].dataset.head = w(column);
}
let order = "",
  address = "";
export function show(changed) {
  const shown = chosen().sort((a, b) => STATES.indexOf(a.state) - STATES.indexOf(b.state) || byName(a, b));
  const ids = shown.map(t => t.id).join(),
    here = document.documentElement.lang + location.hash;
  if (ids === order && here === address) {
    for (const id of changed) {
      const t = lab.terminals.get(id),
        row = rows.get(id);
      if (t && row) follow(row, t);
    }
    return;
  }
  const moved = here === address;
  order = ids;
  address = here;
  const seen = new Set(shown.map(t => t.id)),
    body = $("rows");
  for (const [id, row] of rows)
    if (!seen.has(id)) {
      sight.unobserve(row.tr);
      row.tr.remove();
      rows.delete(id);
    }
  let place = body.firstChild;
  for (const t of shown) {
    const row = rows.get(t.id) || makeRow(t);
    if (!moved) fill(row, t);
    else if (!row.seen || changed.has(t.id)) follow(row, t);
    if (place === row.tr) place = place.nextSibling;
    else body.insertBefore(row.tr, place);
  }
  head();
  hide($("nobody"), shown.length > 0);
  text($("nobody"), w(lab.terminals.size ? "no_match" : "none"));
}
