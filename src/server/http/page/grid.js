// The rooms: one cell for each terminal, by seat, else by switch port, else by label.
import { $, attr, cls, hide, href, make, natural, rate, text, wanted } from "./tools.js";
import { w } from "./words.js";
import { SIGNS, byName, chosen, fits, lab, nameOf, reasonOf } from "./lab.js";

// With more terminals, or more seats side by side, cells are small.
const MOST_LARGE = 150,
  WIDEST_LARGE = 14;
const cells = new Map();
let drawn = "",
  small = false;

// A seat as a place: A12 is in row A, 3-4 and 3.4 in row 3.
function seat(t) {
  const letters = /^([A-Za-z]{1,2})[-. ]?0*(\d{1,2})$/.exec(t.seat || "");
  if (letters) {
    const row = [...letters[1].toUpperCase()].reduce((n, c) => n * 26 + c.charCodeAt(0) - 64, 0);
    return { row, column: Number(letters[2]) };
  }
  const numbers = /^0*(\d{1,2})[-.\/]0*(\d{1,2})$/.exec(t.seat || "");
  return numbers ? { row: Number(numbers[1]), column: Number(numbers[2]) } : null;
}
const port = t => (t.room ? "" : t.switch || "");
function groupOf(t) {
  if (t.room) return { kind: 1, key: t.room, title: w("room", t.room) };
  const named = t.switch && t.switch.split(", port ")[0];
  return named
    ? { kind: 2, key: named, title: w("switch", named) }
    : { kind: 3, key: "", title: w("elsewhere") };
}
function groups(terminals) {
  const all = new Map();
  for (const t of terminals) {
    const group = groupOf(t),
      name = group.kind + group.key;
    if (!all.has(name)) all.set(name, { ...group, members: [] });
    all.get(name).members.push({ t, at: seat(t) });
  }
  return [...all.values()].sort((a, b) => a.kind - b.kind || natural.compare(a.key, b.key));
}
// The members in reading order; each place of the room is taken once.
function arrange(group) {
  const taken = new Set();
  for (const one of group.members.sort((a, b) => byName(a.t, b.t))) {
    const place = one.at && one.at.column > 0 && one.at.row + "." + one.at.column;
    if (!place || taken.has(place)) one.at = null;
    else taken.add(place);
  }
  const by = (a, b) =>
    a.at && b.at
      ? a.at.row - b.at.row || a.at.column - b.at.column
      : !a.at - !b.at || natural.compare(a.t.seat || port(a.t), b.t.seat || port(b.t)) || byName(a.t, b.t);
  group.members.sort(by);
  const seats = group.members.filter(one => one.at);
  // Rows and columns that nobody has take no place.
  const rows = [...new Set(seats.map(one => one.at.row))].sort((a, b) => a - b);
  const columns = [...new Set(seats.map(one => one.at.column))].sort((a, b) => a - b);
  for (const one of seats)
    one.at = { row: rows.indexOf(one.at.row) + 1, column: columns.indexOf(one.at.column) + 1 };
  group.columns = columns.length;
}

function makeCell(t) {
  const item = make("li"),
    link = make("a", "cell", item);
  const head = make("span", "head", link);
  const cell = {
    item,
    link,
    sign: make("b", "sign", head),
    name: make("span", "who", head),
    percent: make("span", "pc", head),
  };
  cell.note = make("span", "note", link);
  cell.bar = make("i", "bar", link);
  cell.sign.setAttribute("aria-hidden", "true");
  link.dataset.id = t.id;
  link.tabIndex = -1;
  cells.set(t.id, cell);
  return cell;
}
// A small cell shows no rate and no part of a percent, so a second of imaging seldom changes it.
function fill(cell, t) {
  const imaging = t.state === "imaging" && t.progress;
  const done = imaging || t.state === "interrupted" ? (t.progress || { percent: 0 }).percent : 0;
  const whole = Math.floor(done);
  const reason = imaging ? "" : reasonOf(t);
  const rated = imaging && t.progress.rate_in > 0 ? rate(t.progress.rate_in) : "";
  const note = small ? "" : imaging ? rated || w(t.progress.stage) : reason || w(t.state);
  const part = (small ? whole : done.toFixed(1)) + "% 100%";
  const shown = [t.state, t.new, whole, reason, note, part, nameOf(t), t.room, t.seat].join("\n");
  if (cell.shown === shown) return;
  cell.shown = shown;
  cls(cell.link, "cell " + t.state + (t.new ? " new" : ""));
  text(cell.sign, SIGNS[t.state] || "?");
  text(cell.name, t.room && t.seat ? t.seat : nameOf(t));
  text(cell.percent, done > 0 ? whole + (small ? "" : " %") : "");
  text(cell.note, note);
  if (cell.part !== part) cell.bar.style.backgroundSize = cell.part = part;
  const place = [t.room && w("room", t.room), t.seat].filter(Boolean).join(" ");
  const label = [
    nameOf(t),
    place,
    w(t.state) + (t.new ? ", " + w("new") : ""),
    done > 0 ? whole + " %" : "",
    reason,
  ]
    .filter(Boolean)
    .join(", ");
  attr(cell.link, "aria-label", label);
  if (cell.link.title !== label) cell.link.title = label;
}

export function show(changed) {
  const filter = wanted(),
    shown = chosen();
  const structure =
    JSON.stringify([document.documentElement.lang, filter.room, filter.state, filter.q]) +
    shown.map(t => [t.id, t.room, t.seat, t.label, port(t)].join()).join(";");
  if (structure === drawn) {
    for (const id of changed) {
      const t = lab.terminals.get(id),
        cell = cells.get(id);
      if (t && cell) fill(cell, t);
    }
    return;
  }
  drawn = structure;
  small = shown.length > MOST_LARGE;
  const focused = document.activeElement && document.activeElement.dataset.id;
  const all = groups(shown),
    body = $("rooms");
  cells.clear();
  body.replaceChildren(...all.map(room));
  cls(body, small ? "dense" : "");
  hide($("nobody"), shown.length > 0);
  text($("nobody"), w(lab.terminals.size ? "no_match" : "none"));
  if (focused && cells.has(focused)) cells.get(focused).link.focus({ preventScroll: true });
}
function room(group, n) {
  arrange(group);
  const section = make("section", "room"),
    heading = make("h3", "", section, group.title);
  heading.id = "room-" + n;
  make("span", "soft", heading, " " + group.members.length);
  const narrow = small || group.columns > WIDEST_LARGE;
  const list = make("ul", "cells" + (group.columns ? " seats" : "") + (narrow ? " small" : ""), section);
  list.setAttribute("aria-labelledby", heading.id);
  if (group.columns) list.style.setProperty("--columns", group.columns);
  for (const { t, at } of group.members) {
    const cell = makeCell(t);
    fill(cell, t);
    cell.link.href = href({ terminal: t.id });
    if (at) {
      cell.item.style.setProperty("--row", at.row);
      cell.item.style.setProperty("--column", at.column);
    }
    list.append(cell.item);
  }
  list.querySelector("a").tabIndex = 0;
  list.onkeydown = walk;
  return section;
}
// Arrow keys walk over the seats; Tab goes to the next room.
function walk(event) {
  const here = event.target.closest("a.cell");
  if (!here) return;
  const links = [...event.currentTarget.querySelectorAll("a.cell")],
    at = links.indexOf(here);
  const box = here.getBoundingClientRect();
  const vertical = down => {
    const beyond = links
      .map(link => ({ link, box: link.getBoundingClientRect() }))
      .filter(one => (down ? one.box.top > box.top + 1 : one.box.top < box.top - 1));
    const off = one => Math.abs(one.box.top - box.top) * 1000 + Math.abs(one.box.left - box.left);
    return beyond.sort((a, b) => off(a) - off(b)).map(one => one.link)[0];
  };
  const to = {
    ArrowRight: () => links[at + 1],
    ArrowLeft: () => links[at - 1],
    ArrowDown: () => vertical(true),
    ArrowUp: () => vertical(false),
    Home: () => links[0],
    End: () => links[links.length - 1],
  }[event.key];
  if (!to) return;
  event.preventDefault();
  const next = to();
  if (next) {
    here.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
}
// The addresses of the cells follow the filters.
export function relink() {
  for (const [id, cell] of cells) attr(cell.link, "href", href({ terminal: id }));
}
