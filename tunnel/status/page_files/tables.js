// The tables of the page: their columns and what they show of the overview.

import { announce, copyText, create, setAttribute, setText, updateList } from "./dom.js";
import { formatAgo, formatBytes, formatCount, formatDuration, formatTime } from "./format.js";
import { DataTable } from "./table.js";

const NEVER = Number.MAX_SAFE_INTEGER;
const SOON = 0.2; // of the lifetime of a certificate

const byId = (id) => document.getElementById(id);

function ensure(cell, make) {
  if (!cell.firstElementChild) cell.append(...make());
}

/** A main text and a smaller one below. */
function setLines(cell, main, ...details) {
  ensure(cell, () => [create("span", { class: "main" })]);
  setText(cell.firstElementChild, main);
  const wanted = details.filter(Boolean);
  while (cell.children.length > wanted.length + 1) cell.lastElementChild.remove();
  wanted.forEach((text, index) => {
    if (!cell.children[index + 1]) cell.append(create("span", { class: "detail" }));
    setText(cell.children[index + 1], text);
  });
}

function setState(cell, state, text) {
  ensure(cell, () => [create("span", { class: "state" })]);
  setAttribute(cell.firstElementChild, "data-state", state);
  setText(cell.firstElementChild, text);
}

function setTraffic(cell, rate, total) {
  setLines(cell, `${formatBytes(rate)}/s`, `${formatBytes(total)} total`);
}

function used({ used: amount, max }) {
  return max ? `${formatCount(amount)} of ${formatCount(max)}` : formatCount(amount);
}

/** The open connections and, if there are any, the handshakes in progress. */
function setOpen(cell, { limits }) {
  const { handshakes } = limits;
  setLines(cell, used(limits.connections), handshakes.used ? `${used(handshakes)} handshakes` : "");
}

function setAddresses(cell, row) {
  setLines(cell, row.listen, ...row.targets.map((one) => `to ${one.target}${one.healthy ? "" : `: ${one.error || "not healthy"}`}`));
  row.targets.forEach((target, index) => setAttribute(cell.children[index + 1], "data-state", target.healthy ? null : "bad"));
}

export function makeListeners() {
  return new DataTable(byId("listeners"), {
    caption: "Listeners, their state and their connections",
    filterLabel: "Filter listeners",
    empty: "There is no listener.",
    sort: null,
    keyOf: (row) => row.name,
    words: (row) => [row.name, row.direction, row.listen, row.problem, row.spiffe_id ?? "", ...row.targets.map((one) => one.target)].join(" "),
    columns: [
      { label: "Listener", value: (row) => row.name, update: (cell, row) => setLines(cell, row.name, row.direction) },
      {
        label: "State",
        value: (row) => Number(row.ready),
        update: (cell, row) => setState(cell, row.ready ? "good" : "bad", row.ready ? "Ready" : `Not ready: ${row.problem}`),
      },
      {
        label: "Address and targets",
        kind: "wide",
        value: (row) => row.listen,
        update: setAddresses,
      },
      { label: "SPIFFE ID", kind: "id", value: (row) => row.spiffe_id ?? "", text: (row) => row.spiffe_id ?? "–" },
      { label: "Open", kind: "number", value: (row) => row.open, update: setOpen },
      { label: "Relayed", kind: "number", value: (row) => row.relayed, text: (row) => formatCount(row.relayed) },
      { label: "Refused", kind: "number", value: (row) => row.refused, text: (row) => formatCount(row.refused) },
      { label: "Failed", kind: "number", value: (row) => row.failed, text: (row) => formatCount(row.failed) },
      { label: "To target", kind: "number", value: (row) => row.rates[0], update: (cell, row) => setTraffic(cell, row.rates[0], row.forwarded_bytes) },
      { label: "From target", kind: "number", value: (row) => row.rates[1], update: (cell, row) => setTraffic(cell, row.rates[1], row.returned_bytes) },
    ],
  });
}

export function makePeers(clock) {
  return new DataTable(byId("peers"), {
    caption: "Peers with their connections and rates",
    filterLabel: "Filter peers",
    empty: "No peer has been admitted yet.",
    sort: null,
    keyOf: (row) => JSON.stringify([row.listener, row.peer]),
    words: (row) => `${row.peer} ${row.listener} ${row.direction}`,
    columns: [
      { label: "Peer", kind: "id", value: (row) => row.peer, text: (row) => row.peer },
      { label: "Listener", value: (row) => row.listener, update: (cell, row) => setLines(cell, row.listener, row.direction) },
      { label: "Open", kind: "number", value: (row) => row.open, text: (row) => formatCount(row.open) },
      { label: "Connections", kind: "number", value: (row) => row.connections, text: (row) => formatCount(row.connections) },
      { label: "To target", kind: "number", value: (row) => row.rates[0], update: (cell, row) => setTraffic(cell, row.rates[0], row.forwarded_bytes) },
      { label: "From target", kind: "number", value: (row) => row.rates[1], update: (cell, row) => setTraffic(cell, row.rates[1], row.returned_bytes) },
      {
        label: "Last end",
        kind: "number",
        value: (row) => row.last_seen,
        text: (row) => (row.last_seen ? formatAgo(clock() - row.last_seen) : "none yet"),
      },
    ],
  });
}

export function makeRefusals(clock) {
  return new DataTable(byId("refusals"), {
    caption: "Recent refusals with their reasons and the rule that would admit the peer",
    filterLabel: "Filter refusals",
    empty: "No connection has been refused.",
    sort: null,
    keyOf: (row) => JSON.stringify([row.listener, row.source, row.peer, row.reason]),
    words: (row) => [row.listener, row.source, row.peer, row.reason, row.detail, row.outcome].join(" "),
    columns: [
      {
        label: "Reason",
        kind: "wide",
        value: (row) => row.reason,
        update: (cell, row) => setLines(cell, row.reason, row.detail.startsWith(`${row.reason}: `) ? row.detail.slice(row.reason.length + 2) : row.detail),
      },
      { label: "Peer", kind: "id", value: (row) => row.peer, text: (row) => row.peer || "not verified" },
      {
        label: "Source and listener",
        kind: "source",
        value: (row) => row.source,
        update: (cell, row) => setLines(cell, row.source, `${row.listener}, ${row.direction}`),
      },
      { label: "Count", kind: "number", value: (row) => row.count, text: (row) => formatCount(row.count) },
      {
        label: "Last",
        kind: "number",
        value: (row) => row.time,
        update: (cell, row) => {
          setText(cell, formatAgo(clock() - row.time));
          setAttribute(cell, "title", `last ${formatTime(row.time)}, first ${formatTime(row.first_time)}`);
        },
      },
      { label: "Rule that admits the peer", kind: "rules", update: (cell, row) => setRules(cell, row) },
    ],
  });
}

/** The flag and the entry of an access list, each with a button that copies it. */
function setRules(cell, row) {
  const rules = [["flag", row.flag], ["entry", row.entry]].filter(([, text]) => text);
  if (!rules.length) {
    if (cell.firstElementChild || !cell.textContent) cell.replaceChildren("none: no access rule decides this");
    return;
  }
  if (!cell.firstElementChild) cell.replaceChildren(create("ul", { class: "rules" }));
  updateList(cell.firstElementChild, rules, makeRule, (item, [kind, text]) => {
    const [code, button] = item.children;
    setText(code, text);
    setAttribute(button, "aria-label", `Copy the ${kind} that admits ${row.peer}`);
  });
}

function makeRule() {
  const code = create("code");
  const button = create("button", { type: "button", class: "copy" }, "Copy");
  button.addEventListener("click", async () => {
    const isCopied = await copyText(code.textContent);
    setText(button, isCopied ? "Copied" : "Not copied");
    announce(isCopied ? "Copied" : "The browser does not permit copying");
    setTimeout(() => setText(button, "Copy"), 2000);
  });
  return create("li", {}, code, button);
}

export function makeIdentities(clock) {
  return new DataTable(byId("identities"), {
    caption: "Our identities with the time to their expiry and their rotations",
    empty: "There is no identity.",
    sort: null,
    keyOf: (row) => row.name,
    words: (row) => row.subject,
    columns: [
      {
        label: "Identity",
        kind: "id",
        value: (row) => row.subject,
        update: (cell, row) => setLines(cell, row.subject || "none yet", [row.name, row.source].filter(Boolean).join(", ")),
      },
      {
        label: "Expires in",
        value: (row) => row.not_after ?? NEVER,
        update: (cell, row) => setExpiry(cell, row.not_before, row.not_after, clock()),
      },
      {
        label: "State",
        value: (row) => Number(!row.problem),
        update: (cell, row) => setState(cell, row.problem ? "bad" : "good", row.problem || "Up to date"),
      },
      { label: "Serial number", kind: "code", text: (row) => row.serial || "–" },
      { label: "Listeners", kind: "wide", value: (row) => row.listeners.length, text: (row) => describeNames(row.listeners) },
      { label: "Updates", kind: "number", value: (row) => row.generation, text: (row) => formatCount(row.generation) },
      { label: "Rotations", kind: "wide", update: setRotations },
    ],
  });
}

function describeNames(names) {
  const rest = names.length - 4;
  return rest > 0 ? `${names.slice(0, 4).join(", ")} and ${formatCount(rest)} more` : names.join(", ");
}

function setExpiry(cell, begin, end, now) {
  ensure(cell, () => [create("span", { class: "main" }), create("span", { class: "lifetime", "aria-hidden": "true" }, create("span"))]);
  const [text, bar] = cell.children;
  const left = end === null ? 0 : end - now;
  const share = end === null || begin === null ? 1 : Math.min(Math.max(left / (end - begin), 0), 1);
  setText(text, end === null ? "–" : left > 0 ? formatDuration(left) : `expired ${formatAgo(-left)}`);
  setAttribute(cell, "title", end === null ? null : formatTime(end));
  bar.hidden = end === null || begin === null;
  bar.firstChild.style.width = `${(share * 100).toFixed(1)}%`;
  setAttribute(bar, "data-state", left <= 0 ? "bad" : share < SOON ? "warn" : "good");
}

function setRotations(cell, row) {
  ensure(cell, () => [create("details", {}, create("summary"), create("ol", { class: "rotations" }))]);
  const [summary, list] = cell.firstElementChild.children;
  const [newest] = row.rotations;
  setText(summary, newest ? `last ${formatTime(newest.time)}` : "none yet");
  updateList(list, row.rotations, () => create("li"), (item, rotation) => {
    const end = rotation.not_after === null ? "" : `, expires ${formatTime(rotation.not_after)}`;
    setText(item, `${formatTime(rotation.time)}: serial ${rotation.serial || "–"}${end}`);
  });
}

export function makeDomains(clock) {
  return new DataTable(byId("domains"), {
    caption: "Trust domains with the expiry of their authorities",
    empty: "There is no trust bundle: certificates are verified by files.",
    sort: null,
    keyOf: (row) => JSON.stringify([row.name, row.authorities, row.expires, row.identities]),
    words: (row) => row.name,
    columns: [
      { label: "Trust domain", kind: "id", value: (row) => row.name, text: (row) => row.name },
      { label: "Authorities", kind: "number", value: (row) => row.authorities, text: (row) => formatCount(row.authorities) },
      {
        label: "First authority expires in",
        value: (row) => row.expires ?? NEVER,
        update: (cell, row) => setExpiry(cell, null, row.expires, clock()),
      },
      { label: "Identities that trust it", kind: "wide", text: (row) => describeNames(row.identities.map((name) => name || "the only one")) },
    ],
  });
}
