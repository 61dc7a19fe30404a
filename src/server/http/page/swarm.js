// The swarm: zones with what their uplinks carry, and the images with their peers.
import { $, attr, bytes, hide, make, rate, sync, text } from "./tools.js";
import { w } from "./words.js";
import { lab } from "./lab.js";

function row(parent, columns) {
  const tr = make("tr", "", parent);
  for (const column of columns) make("td", column.startsWith("#") ? "num" : "", tr);
  return tr;
}
function head(node, columns) {
  node.replaceChildren();
  for (const column of columns)
    make("th", column.startsWith("#") ? "num" : "", node, w(column.replace("#", ""))).scope = "col";
}
const ZONE = ["zone", "#terminals", "#imaging", "#uplink", "gateways"];
const IMAGE = [
  "image",
  "#payload",
  "signature",
  "#fetching",
  "#complete",
  "#server_sends",
  "#server_sent",
  "torrent",
];
function put(tr, values, columns) {
  values.forEach((value, n) => {
    text(tr.children[n], value);
    tr.children[n].dataset.head = w(columns[n].replace("#", ""));
  });
}
export function show() {
  if (!lab.rest) return;
  head($("zonehead"), ZONE);
  head($("imagehead"), IMAGE);
  const { zones, images } = lab.rest;
  const load = new Map();
  for (const t of lab.terminals.values())
    if (t.gateway && t.zone && t.state === "imaging" && t.progress)
      load.set(t.zone, (load.get(t.zone) || 0) + t.progress.rate_in);
  hide($("nozones"), zones.length > 0);
  sync(
    $("zones"),
    zones,
    () => row(null, ZONE),
    (tr, z) =>
      put(
        tr,
        [
          z.name,
          String(z.terminals),
          String(z.imaging),
          rate(load.get(z.name) || 0),
          z.gateways.join(", ") || "–",
        ],
        ZONE,
      ),
  );
  hide($("noimages"), images.length > 0);
  sync(
    $("images"),
    images,
    () => {
      const tr = row(null, IMAGE);
      make("a", "", tr.lastChild);
      return tr;
    },
    (tr, i) => {
      const s = i.seeding;
      put(
        tr,
        [
          i.name + "@" + i.version,
          bytes(i.bytes),
          w(i.signature),
          String(i.incomplete),
          String(i.complete),
          s ? rate(s.rate_out) : w("not_seeded"),
          s ? bytes(s.bytes_out) : "–",
        ],
        IMAGE,
      );
      tr.lastChild.dataset.head = w("torrent");
      text(tr.lastChild.firstChild, w("download"));
      attr(
        tr.lastChild.firstChild,
        "href",
        "/torrents/" + encodeURIComponent(i.name) + "/" + encodeURIComponent(i.version) + ".torrent",
      );
    },
  );
}
