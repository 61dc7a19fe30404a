// One terminal in full: all that the server knows of it.
import {
  $,
  attr,
  button,
  bytes,
  date,
  hide,
  href,
  make,
  percent,
  sync,
  text,
  time,
  wanted,
} from "./tools.js";
import { w } from "./words.js";
import { lab, nameOf } from "./lab.js";
import { actOn } from "./act.js";
import * as attempts from "./attempts.js";

const disk = d =>
  [d.name, d.model, d.serial, bytes(d.size) + " (" + d.bus + ")"].filter(Boolean).join(", ");
function card(n) {
  const at = n.neighbour && (n.neighbour.name || n.neighbour.chassis) + " " + n.neighbour.port;
  return [n.name, n.mac, n.link ? (n.speed ? n.speed + " Mbit/s" : "") : "–", n.driver, n.address, at]
    .filter(Boolean)
    .join(", ");
}
const device = d =>
  [d.bus + " " + d.id, d.address, w("class") + " " + d.class, d.driver || w("no_driver")].join(", ");
function result(t) {
  const o = t.outcome,
    p = t.progress;
  if (!o) return p ? w(p.stage) + ", " + percent(p.percent) : "";
  if (o.result === "checked")
    return [w("checked")]
      .concat(o.findings.map(one => w(one.severity) + ": " + one.what + ". " + one.advice))
      .concat(o.facts.map(one => one.name + ": " + one.value))
      .join("; ");
  if (o.result === "done")
    return (
      w("done") +
      ", " +
      time(o.seconds) +
      ", " +
      o.disk +
      (o.warnings || []).map(one => "; " + w("warning") + ": " + one).join("")
    );
  return (
    w("failed") +
    " (" +
    w(o.stage) +
    "): " +
    o.failure.message +
    ". " +
    o.failure.advice +
    (o.disk_touched ? " " + w("half") : "")
  );
}
function attempt(a) {
  return [
    a.number,
    w("job", a.job),
    a.images,
    date(a.started) + " – " + (a.ended ? date(a.ended) : "…"),
    a.tries > 1 && w("attempts") + " " + a.tries,
    a.cancelled && w("cancelled"),
  ]
    .filter(Boolean)
    .join(", ");
}
function facts(t) {
  const all = [],
    add = (name, value) => {
      if (value) all.push([w(name), value]);
    },
    i = t.inventory;
  add("state", w(t.state) + (t.new ? " (" + w("new") + ")" : ""));
  add("reason", t.reason);
  add("result", result(t));
  add("system", t.system);
  if (t.attempt && t.attempt.personal) t.attempt.personal.problems.forEach(one => add("warning", one));
  if (t.job) add("job_of", w("job", t.job));
  if (t.attempt) add("attempt", attempt(t.attempt));
  t.notes.forEach(note => add("note", note));
  t.installed.forEach(o =>
    add(
      "installed",
      o.image +
        "@" +
        o.version +
        ", " +
        o.disk +
        (o.partitions ? " (" + o.partitions.join(", ") + ")" : ""),
    ),
  );
  if (t.half_written) add("installed", w("half_system"));
  add("place", [t.room && w("room", t.room), t.seat].filter(Boolean).join(" "));
  add("groups", t.groups.join(", "));
  add("hostname", t.hostname);
  const claimed = t.claimed_macs || [];
  add("macs", t.macs.filter(m => !claimed.includes(m)).join(", "));
  add("claimed_macs", claimed.join(", "));
  add("uuid", t.uuid);
  add(
    "address",
    [t.address, t.zone && w("zone") + " " + t.zone, t.gateway && w("gateway")].filter(Boolean).join(", "),
  );
  add("switch_of", t.switch);
  add("first_heard", t.last_heard ? date(t.first_heard) : w("never"));
  add("last_heard", t.last_heard ? date(t.last_heard) : w("never"));
  add("netbooted", t.netbooted);
  add("machine", [i.machine, i.serial].filter(Boolean).join(", "));
  add("cpu", i.cpu);
  add("memory", i.memory ? bytes(i.memory) : "");
  add("firmware", i.firmware);
  add("agent", t.agent);
  i.disks.forEach(d => add("disk", disk(d)));
  t.missing_disks.forEach(d => add("missing_disk", disk(d)));
  i.nics.forEach(n => add("nic", card(n)));
  (i.devices || []).forEach(d => add("device", device(d)));
  return all;
}
function fill(name, t, error) {
  const was = $("one").hidden;
  hide($("one"), false);
  text($("onename"), t ? nameOf(t) + (t.label ? " (" + t.id + ")" : "") : name);
  text($("oneerror"), error);
  hide($("oneerror"), !error);
  attr($("oneclose"), "href", href({ terminal: "" }));
  sync(
    $("facts"),
    t ? facts(t) : [],
    () => {
      const line = make("div");
      make("dt", "", line);
      make("dd", "", line);
      return line;
    },
    (line, [name, value]) => {
      text(line.firstChild, name);
      text(line.lastChild, value);
    },
  );
  const line = $("oneactions");
  const can = !t
    ? []
    : ["imaging", "waiting", "planned", "interrupted"].includes(t.state)
      ? ["cancel", "wake"]
      : ["retry", "wake"];
  const attempted = t && t.attempt ? t.attempt.number : null;
  const key = can.join() + (t ? t.id : "") + attempted + document.documentElement.lang;
  if (line.dataset.key !== key) {
    line.dataset.key = key;
    line.replaceChildren();
    for (const action of can) button(w(action), line, () => actOn(action, t));
    if (attempted) make("a", "", line, w("log")).href = "/api/v1/attempts/" + attempted + "/log";
  }
  if (was) {
    $("one").scrollIntoView({ block: "nearest" });
    $("onename").focus({ preventScroll: true });
  }
}
// The terminal that the address names; it may be named by its label, a MAC or a UUID, too.
export async function show(changed) {
  const name = wanted().terminal;
  if (!name) {
    hide($("one"), true);
    delete $("one").dataset.id;
    return;
  }
  if (changed && $("one").dataset.name === name && !changed.has($("one").dataset.id)) return;
  try {
    const answer = await fetch("/api/v1/terminals/" + encodeURIComponent(name), {
      cache: "no-store",
      signal: AbortSignal.timeout(5000),
    });
    const body = await answer.json();
    // Another one may have been chosen meanwhile.
    if (wanted().terminal !== name) return;
    $("one").dataset.name = name;
    $("one").dataset.id = answer.ok ? body.id : "";
    if (answer.ok) fill(name, body, "");
    else fill(name, null, body.error + ". " + body.advice);
    attempts.show(answer.ok ? body : null);
  } catch {
    if (lab.terminals.has(name) || $("one").hidden) fill(name, null, w("lost"));
  }
}
