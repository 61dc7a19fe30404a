// The page: what the address asks for, shown from what the server told.
import { $, attr, cls, go, hide, href, make, natural, rate, text, time, turn, wanted } from "./tools.js";
import { switchLanguage, translate, w } from "./words.js";
import { STATES, SIGNS, fits, follow, lab } from "./lab.js";
import * as needs from "./needs.js";
import * as grid from "./grid.js";
import * as list from "./list.js";
import * as jobs from "./jobs.js";
import * as one from "./one.js";
import * as swarm from "./swarm.js";
import { showToken } from "./act.js";

const VIEWS = ["grid", "list", "jobs", "swarm"];
const view = () => (VIEWS.includes(wanted().view) ? wanted().view : "grid");
const chips = {};

function buildChips() {
  $("chips").replaceChildren();
  for (const key of ["", ...STATES, "new"]) {
    const chip = make("button", "chip " + key, $("chips"));
    chip.type = "button";
    chips[key] = { chip, count: make("b", "", chip) };
    if (SIGNS[key]) make("span", "", chip, " " + SIGNS[key]).setAttribute("aria-hidden", "true");
    chip.append(" " + w(key || "terminals"));
    chip.onclick = () => go({ state: wanted().state === key ? "" : key });
  }
}
function showSums() {
  const filter = wanted(),
    counts = { "": 0, new: 0 };
  let arriving = 0,
    left = null;
  for (const t of lab.terminals.values()) {
    if (!fits(t, filter, false)) continue;
    counts[""]++;
    counts[t.state] = (counts[t.state] || 0) + 1;
    if (t.new) counts.new++;
    if (t.state !== "imaging" || !t.progress) continue;
    arriving += t.progress.rate_in;
    if (t.progress.seconds_left !== null) left = Math.max(left || 0, t.progress.seconds_left);
  }
  for (const [key, { chip, count }] of Object.entries(chips)) {
    text(count, String(counts[key] || 0));
    attr(chip, "aria-pressed", String((filter.state || "") === key));
    hide(chip, key !== "" && !counts[key] && filter.state !== key);
  }
  text($("rate"), rate(arriving));
  text($("left"), time(left));
  document.title = counts.imaging
    ? "flashmob: " + counts.imaging + " " + w("imaging")
    : counts.failed
      ? "flashmob: " + counts.failed + " " + w("failed")
      : "flashmob";
}
function showRooms() {
  const rooms = [...new Set([...lab.terminals.values()].map(t => t.room).filter(Boolean))].sort(
    natural.compare,
  );
  const choice = $("room"),
    now = wanted().room || "";
  if (now && !rooms.includes(now)) rooms.push(now);
  const all = ["", ...rooms];
  if (
    [...choice.options].map(option => option.value + option.text).join() !==
    all.map(room => room + (room || w("any_room"))).join()
  )
    choice.replaceChildren(...all.map(room => new Option(room || w("any_room"), room)));
  if (choice.value !== now) choice.value = now;
}

const everything = { jobs: true, lab: true };
function show(changed, { jobs: jobsToo, lab: labToo } = everything) {
  const now = view();
  text($("link"), w("live"));
  cls($("link"), "soft");
  text($("version"), lab.rest ? lab.rest.version : "");
  showRooms();
  showSums();
  needs.show();
  if (now === "grid") grid.show(changed);
  if (now === "list") list.show(changed);
  if (now === "jobs") {
    jobs.show();
    if (labToo) jobs.images();
  }
  if (now === "swarm") swarm.show();
  one.show(changed);
  if (jobsToo && wanted().job) jobs.showReport();
}
function followAddress() {
  const now = view(),
    filter = wanted();
  for (const name of VIEWS) {
    const link = $("to-" + name);
    attr(link, "href", href({ view: name === "grid" ? "" : name }));
    if (name === now) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    hide($("view-" + name), name !== now);
  }
  hide($("nobody"), true);
  if ($("search").value !== (filter.q || "") && document.activeElement !== $("search"))
    $("search").value = filter.q || "";
  if (!lab.version) return;
  grid.relink();
  show(new Set(), { jobs: true, lab: true });
  one.show();
  if (!filter.job) jobs.showReport();
}

$("search").oninput = () => turn({ q: $("search").value.trim() });
$("room").onchange = () => go({ room: $("room").value });
$("skip").onclick = event => {
  event.preventDefault();
  $("main").focus();
};
$("filters").onsubmit = event => event.preventDefault();
$("language").onclick = () => {
  switchLanguage();
  buildChips();
  showToken();
  followAddress();
};
addEventListener("hashchange", followAddress);
addEventListener("keydown", event => {
  if (event.key === "Escape" && (wanted().terminal || wanted().job)) go({ terminal: "", job: "" });
  else if (event.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) {
    event.preventDefault();
    $("search").focus();
  }
});
translate();
buildChips();
showToken();
followAddress();
follow(show, () => {
  text($("link"), w("lost"));
  cls($("link"), "lost");
});
