// Texts for numbers and times. Pure functions.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];
const count = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

export function formatCount(value) {
  return count.format(value);
}

/** A number with at most three significant digits, for rates and axes. */
export function formatShort(value) {
  if (value === 0) return "0";
  if (Math.abs(value) >= 1000) return count.format(value);
  return String(Number(value.toPrecision(Math.abs(value) >= 100 ? 3 : 2)));
}

export function formatBytes(value) {
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? count.format(value) : value.toFixed(value < 9.95 ? 1 : 0)} ${UNITS[unit]}`;
}

/** A duration in seconds as its two largest units. */
export function formatDuration(seconds) {
  const left = Math.max(Math.floor(seconds), 0);
  const parts = [
    [Math.floor(left / 86400), "d"],
    [Math.floor(left / 3600) % 24, "h"],
    [Math.floor(left / 60) % 60, "min"],
    [left % 60, "s"],
  ];
  const first = parts.findIndex(([amount]) => amount > 0);
  if (first < 0) return "0 s";
  return parts.slice(first, first + 2).map(([amount, unit]) => `${amount} ${unit}`).join(" ");
}

export function formatAgo(seconds) {
  return seconds < 1 ? "now" : `${formatDuration(seconds)} ago`;
}

export function formatMilliseconds(value) {
  return `${formatShort(value)} ms`;
}

/** Date and time of this browser's time zone. */
export function formatTime(unix) {
  return new Date(unix * 1000).toLocaleString("en-CA", { hour12: false, timeZoneName: "short" });
}

export function formatClock(unix) {
  return new Date(unix * 1000).toLocaleTimeString("en-GB", { hour12: false });
}
