// Bytes per second from totals that arrive each second.

const WINDOW = 5; // seconds

export class Rates {
  constructor() {
    this.samples = new Map(); // by key: [time, first total, second total], oldest first
  }

  /** Forget everything: the totals begin again. */
  reset() {
    this.samples.clear();
  }

  /** Add totals, and return both rates. */
  add(key, time, first, second) {
    const samples = this.samples.get(key) ?? [];
    if (samples.length && first + second < samples.at(-1)[1] + samples.at(-1)[2]) samples.length = 0;
    samples.push([time, first, second]);
    while (samples.length > 2 && time - samples[1][0] >= WINDOW) samples.shift();
    this.samples.set(key, samples);
    const [begun, firstBefore, secondBefore] = samples[0];
    if (time - begun < 0.2) return [0, 0];
    return [(first - firstBefore) / (time - begun), (second - secondBefore) / (time - begun)];
  }

  /** Forget the keys that are not in a set. */
  keep(keys) {
    for (const key of this.samples.keys()) if (!keys.has(key)) this.samples.delete(key);
  }
}
