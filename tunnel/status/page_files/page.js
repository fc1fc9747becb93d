// The page: shows the overview of a tunnel process and the last 15 minutes, as the server sends them.

import { create, setAttribute, setText, updateList } from "./dom.js";
import { formatBytes, formatClock, formatCount, formatDuration, formatMilliseconds, formatShort } from "./format.js";
import { listen } from "./live.js";
import { Plot } from "./plot.js";
import { Rates } from "./rates.js";
import { makeDomains, makeIdentities, makeListeners, makePeers, makeRefusals } from "./tables.js";

const TIME = 0;
const OPENED = 1;
const HANDSHAKES = 2;
const REFUSED = 3;
const FAILED = 4;
const FORWARDED = 5;
const RETURNED = 6;
const LAG = 7;

const byId = (id) => document.getElementById(id);
let skew = 0; // seconds that the server's clock is ahead of ours
const now = () => Date.now() / 1000 + skew;
let newest = null; // the last overview
let run = ""; // which process it is
const rates = new Rates();
const history = { interval: 5, length: 180, points: [] };

const perSecond = (value) => `${formatShort(value)}/s`;
const bytesPerSecond = (value) => `${formatBytes(value)}/s`;
const plots = [
  {
    title: "Open connections",
    series: [{ label: "open", read: (point) => point[OPENED] }],
    format: formatShort,
    least: 2,
  },
  { title: "Handshakes", series: [{ label: "completed", read: (point) => point[HANDSHAKES] }], format: perSecond, least: 1 },
  {
    title: "Refusals",
    series: [
      { label: "refused", read: (point) => point[REFUSED] },
      { label: "failed", read: (point) => point[FAILED] },
    ],
    format: perSecond,
    least: 1,
  },
  {
    title: "Bytes",
    series: [
      { label: "to targets", read: (point) => point[FORWARDED] },
      { label: "from targets", read: (point) => point[RETURNED] },
    ],
    format: bytesPerSecond,
    least: 1000,
  },
  {
    title: "Event loop lag",
    series: [{ label: "longest", read: (point) => point[LAG] * 1000 }],
    format: formatMilliseconds,
    least: 10,
  },
].map((options) => new Plot(byId("plots"), options));

const tables = {
  listeners: makeListeners(),
  peers: makePeers(now),
  refusals: makeRefusals(now),
  identities: makeIdentities(now),
  domains: makeDomains(now),
};
const morePeers = create("p", { class: "muted", hidden: "" });
byId("peers").append(morePeers);

function showHistory() {
  for (const plot of plots) plot.update(history.points, history.interval, history.length);
}

function takeHistory(data) {
  Object.assign(history, data);
  showHistory();
}

function takePoint(point) {
  const begin = point[TIME] - history.interval * history.length;
  history.points = [...history.points, point].filter((one) => one[TIME] > begin);
  showHistory();
}

function takeOverview(overview) {
  skew = overview.time - Date.now() / 1000;
  const current = `${overview.hostname} ${overview.pid} ${overview.started}`;
  if (current !== run) rates.reset();
  run = current;
  newest = addRates(overview);
  document.body.dataset.events = String(Number(document.body.dataset.events ?? 0) + 1);
  show();
}

/** Add the rates of both directions to each listener and each peer. */
function addRates(overview) {
  const add = (row, ...names) => {
    const key = JSON.stringify(names);
    return [key, { ...row, rates: rates.add(key, overview.time, row.forwarded_bytes, row.returned_bytes) }];
  };
  const listeners = overview.listeners.map((row) => add(row, row.name));
  const peers = overview.peers.map((row) => add(row, row.listener, row.peer));
  rates.keep(new Set([...listeners, ...peers].map(([key]) => key)));
  return { ...overview, listeners: listeners.map(([, row]) => row), peers: peers.map(([, row]) => row) };
}

function show() {
  showReadiness();
  showNumbers();
  const { listeners, peers, refusals, identities, trust_domains: domains } = newest;
  for (const [name, rows] of Object.entries({ listeners, peers, refusals, identities, domains })) {
    tables[name].update(rows);
    const more = name === "peers" ? newest.more_peers : 0;
    setText(byId(`count-${name}`), formatCount(rows.length + more));
  }
  morePeers.hidden = !newest.more_peers;
  setText(morePeers, `${formatCount(newest.more_peers)} more peers are not listed.`);
}

function showReadiness() {
  const { ready, problem, phase } = newest;
  setAttribute(byId("readiness"), "data-state", ready ? "good" : "bad");
  const detail = problem || (phase === "listening" ? "" : phase);
  setText(byId("readiness"), [ready ? "Ready" : "Not ready", detail].filter(Boolean).join(": "));
  setText(byId("process"), `${newest.hostname}, version ${newest.version}, process ${newest.pid}, running for ${formatDuration(now() - newest.started)}`);
  setText(document.querySelector("title"), `${ready ? "Ready" : "Not ready"}: ${newest.hostname} - tunnel`);
}

function sum(rows, read) {
  return rows.reduce((total, row) => total + read(row), 0);
}

function showNumbers() {
  const { listeners, identities } = newest;
  const ends = identities.map((one) => one.not_after).filter((end) => end !== null);
  const last = history.points.at(-1);
  const numbers = [
    ["Open connections", formatCount(sum(listeners, (one) => one.open))],
    ["Refused", formatCount(sum(listeners, (one) => one.refused))],
    ["Failed", formatCount(sum(listeners, (one) => one.failed))],
    ["To targets", bytesPerSecond(sum(listeners, (one) => one.rates[0]))],
    ["From targets", bytesPerSecond(sum(listeners, (one) => one.rates[1]))],
    ["Event loop lag", last ? formatMilliseconds(last[LAG] * 1000) : "–"],
    ["First expiry", ends.length ? formatDuration(Math.min(...ends) - now()) : "–"],
    ["Dropped log lines", formatCount(newest.dropped_log_lines)],
  ];
  updateList(byId("numbers"), numbers, () => create("div", {}, create("dt"), create("dd")), (item, [name, value]) => {
    setText(item.firstChild, name);
    setText(item.lastChild, value);
  });
}

function showConnection(state) {
  const isLive = state === "live";
  setAttribute(byId("connection"), "data-state", isLive ? "good" : "bad");
  const since = newest ? ` since ${formatClock(newest.time)}` : "";
  if (isLive) setText(byId("connection"), "Live");
  else if (byId("connection").textContent.startsWith("Connection lost") === false) {
    setText(byId("connection"), `Connection lost${since}, connecting again`);
  }
  document.body.classList.toggle("stale", !isLive);
}

listen("events", { history: takeHistory, point: takePoint, overview: takeOverview }, showConnection);
// The times to expiry count down also while the connection is lost.
setInterval(() => { if (newest && document.body.classList.contains("stale")) show(); }, 1000);
