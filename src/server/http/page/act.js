// Acting: a person's token, which stays in this tab, and the calls that need it.
import { $, hide, text } from "./tools.js";
import { w } from "./words.js";
import { nameOf } from "./lab.js";

const KEY = "flashmob.token";
const token = () => sessionStorage.getItem(KEY);

export function say(what, bad) {
  text($("said"), what);
  $("said").className = bad ? "bad" : "good";
  hide($("said"), !what);
}
// Calls the server; the answer's body, or null after saying what is wrong.
export async function call(method, path, body) {
  if (!token()) {
    open();
    say(w("token_first"), true);
    return null;
  }
  const headers = { Authorization: "Bearer " + token() };
  if (body) headers["Content-Type"] = "application/json";
  try {
    const answer = await fetch(path, {
      method,
      headers,
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(15000),
    });
    const text = await answer.text();
    let told = {};
    try {
      told = text ? JSON.parse(text) : {};
    } catch {
      told = { error: text };
    }
    if (answer.ok) return told;
    if (answer.status === 401) open();
    say([told.error, told.advice].filter(Boolean).join(". ") || "HTTP " + answer.status, true);
  } catch {
    say(w("lost"), true);
  }
  return null;
}
const path = (t, action) => "/api/v1/terminals/" + encodeURIComponent(t.id) + "/" + action;
export async function actOn(action, t) {
  if (action === "cancel" && !confirm(w("sure_cancel", nameOf(t)))) return;
  if (await call("POST", path(t, action))) say(w("ok_done", w(action) + " " + nameOf(t)));
}
export async function actOnAll(action, members) {
  let accepted = 0;
  for (const t of members) {
    if (!(await call("POST", path(t, action)))) return;
    accepted++;
  }
  say(w("ok_done", w(action) + " " + accepted));
}
export async function actOnJob(action, number) {
  if (action === "cancel" && !confirm(w("sure_cancel_job", number))) return;
  if (await call("POST", "/api/v1/jobs/" + number + "/" + action, action === "retry" ? {} : undefined))
    say(w("ok_done", w(action) + " " + w("job", number)));
}
function open() {
  $("acting").open = true;
  $("token").focus();
}
export function showToken() {
  text($("tokenstate"), w(token() ? "token_has" : "token_why"));
  hide($("tokendrop"), !token());
}
$("tokenform").onsubmit = event => {
  event.preventDefault();
  const typed = $("token").value.trim();
  if (!typed) return;
  sessionStorage.setItem(KEY, typed);
  $("token").value = "";
  $("acting").open = false;
  say("");
  showToken();
};
$("tokendrop").onclick = () => {
  sessionStorage.removeItem(KEY);
  showToken();
};
