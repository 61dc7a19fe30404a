// Small tools: nodes, numbers, times, and the address.
import { lang, w } from "./words.js";

export const $ = id => document.getElementById(id);
export const natural = new Intl.Collator("en", { numeric: true });

// Text is only ever set as text; and only when it changed, so that a thousand rows cost nothing while nothing
// happens.
export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}
export function cls(node, value) {
  if (node.className !== value) node.className = value;
}
export function hide(node, yes) {
  if (node.hidden !== yes) node.hidden = yes;
}
export function attr(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}
export function make(tag, className, parent, content) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (content !== undefined) node.textContent = content;
  if (parent) parent.appendChild(node);
  return node;
}
export function button(label, parent, pressed) {
  const node = make("button", "", parent, label);
  node.type = "button";
  node.onclick = pressed;
  return node;
}
// Makes the children of `parent` fit `items`, reusing those that are there.
export function sync(parent, items, build, fill) {
  while (parent.children.length > items.length) parent.lastChild.remove();
  items.forEach((item, i) => fill(parent.children[i] || parent.appendChild(build()), item));
}
export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1023.95 && i < units.length - 1) {
    n /= 1024;
    i++;
  }
  return (i === 0 ? n : n.toFixed(1)) + " " + units[i];
}
export function rate(n) {
  return n > 0 ? (n / 1e6).toFixed(n < 9.95e6 ? 1 : 0) + " MB/s" : "–";
}
export function time(s) {
  if (s === null || s === undefined) return "–";
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min " + String(s % 60).padStart(2, "0") + " s";
  return Math.floor(s / 3600) + " h " + String(Math.floor((s % 3600) / 60)).padStart(2, "0") + " min";
}
export function date(t) {
  return t
    ? new Date(t).toLocaleString(lang === "zh" ? "zh-CN" : undefined, {
        dateStyle: "medium",
        timeStyle: "short",
      })
    : "–";
}
export function percent(n) {
  return (n >= 100 ? "100" : n.toFixed(1)) + " %";
}
export const stage = name => w(name);

// What the address says: view, room, state, q, terminal, job.
export function wanted() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}
// The address with some of it changed; an empty value leaves a part out.
export function href(change) {
  const all = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of Object.entries(change)) value ? all.set(name, value) : all.delete(name);
  return "#" + all;
}
export function go(change) {
  location.hash = href(change);
}
// A filter that is still being typed makes no new step in the browser's history.
export function turn(change) {
  history.replaceState(null, "", href(change));
  dispatchEvent(new HashChangeEvent("hashchange"));
}
