"use strict";
// Fetches this page again every two seconds, takes its numbers over, and draws what changed between two
// of them. Everything else works without it.
(() => {
  const EVERY_MS = 2000, N_POINTS = 90, WIDTH = 320, HEIGHT = 130, LEFT = 44;
  const SVG = "http://www.w3.org/2000/svg";
  const points = [];
  const status = (page) => JSON.parse(page.getElementById("data").textContent);
  let last = status(document), lastAt = performance.now(), isPaused = false;
  // Whether the page was paused or hidden since then.
  let wasAway = false;

  const make = (name, attributes, text) => {
    const it = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) it.setAttribute(key, value);
    if (text !== undefined) it.textContent = text;
    return it;
  };
  const count = (n) => n >= 1e6 ? (n / 1e6).toFixed(1) + " M" : n >= 1e4 ? (n / 1e3).toFixed(0) + " k"
    : n >= 10 || n === 0 ? n.toFixed(0) : n.toFixed(1);
  const short = (n) => n >= 100 || n === Math.round(n) ? n.toFixed(0) : n.toFixed(1);
  const time = (s) => s >= 1 ? short(s) + " s" : s >= 1e-3 ? short(s * 1e3) + " ms"
    : (s * 1e6).toFixed(0) + " µs";
  // Beyond the bounds of the histogram no more is known than the bound.
  const bound = () => last.counts.duration_bounds_s.at(-1);
  const known = (s) => s === Infinity ? "> " + time(bound()) : (s <= 1e-4 ? "≤ " : "") + time(s);
  const percent = (share) => share > 0 && share < 1e-3 ? "< 0.1 %" : (share * 100).toFixed(1) + " %";

  // The value that this share of all is below, from the buckets of a histogram.
  const quantile = (buckets, bounds, share) => {
    const wanted = share * buckets.reduce((sum, n) => sum + n, 0);
    if (wanted === 0) return null;
    let below = 0, lower = 0;
    for (let n = 0; n < bounds.length; n += 1) {
      if (buckets[n] > 0 && below + buckets[n] >= wanted) {
        // Of the lowest bucket no more is known than its bound.
        return Math.max(bounds[0], lower + (wanted - below) / buckets[n] * (bounds[n] - lower));
      }
      below += buckets[n];
      lower = bounds[n];
    }
    return Infinity;
  };

  const note = (now, seconds) => {
    const [a, b] = [last.counts, now.counts];
    const isGap = wasAway && seconds > 2 * EVERY_MS / 1000;
    wasAway = isPaused || document.hidden;
    // One point would be the mean of all that time.
    if (isGap) {
      points.length = 0;
      return;
    }
    // A ktrix that was started again counts from the beginning.
    if (now.since_s !== last.since_s || seconds <= 0) return;
    const rates = {};
    for (const verdict of Object.keys(b.verdicts)) {
      rates[verdict] = Math.max(0, b.verdicts[verdict] - a.verdicts[verdict]) / seconds;
    }
    const hits = rates.hit + rates.stale, looked = hits + rates.miss + rates.revalidated;
    const all = Object.values(rates).reduce((sum, n) => sum + n, 0);
    const failed = Math.max(0, b.server_errors - a.server_errors) / seconds;
    const buckets = b.duration_buckets.map((n, at) => Math.max(0, n - a.duration_buckets[at]));
    const of = (share) => quantile(buckets, b.duration_bounds_s, share);
    points.push({ rates, failed: all > 0 ? failed / all : 0, ratio: looked > 0 ? hits / looked : null, p50: of(.5), p90: of(.9), p99: of(.99) });
    if (points.length > N_POINTS) points.shift();
  };

  const x = (n) => LEFT + (N_POINTS - points.length + n) / (N_POINTS - 1) * (WIDTH - LEFT);
  // The lines at some values, and the place of a value between them.
  const frame = (svg, marks, share, show) => {
    svg.replaceChildren();
    const y = (value) => HEIGHT - Math.min(1, Math.max(0, share(value))) * (HEIGHT - 12);
    for (const mark of marks) {
      svg.append(make("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: y(mark), y2: y(mark) }));
      svg.append(make("text", { x: LEFT - 5, y: y(mark) + 4, "text-anchor": "end" }, show(mark)));
    }
    return y;
  };
  const linear = (svg, top, show) => frame(svg, [0, top / 2, top], (value) => value / top, show);
  // Each line is ten times the one below: half of all is seen beside the slowest.
  const decades = (svg, top, show) => {
    const n = Math.max(1, Math.ceil(Math.log10(top / 1e-4) - 1e-9));
    const marks = Array.from({ length: n + 1 }, (_, it) => 1e-4 * 10 ** it);
    return frame(svg, marks, (value) => Math.log10(Math.max(value, 1e-4) / 1e-4) / n, show);
  };
  const line = (svg, name, y, value) => {
    let path = "", isOn = false;
    points.forEach((point, n) => {
      const it = value(point);
      if (it !== null) path += `${isOn ? "L" : "M"}${x(n).toFixed(1)} ${y(it).toFixed(1)}`;
      isOn = it !== null;
    });
    if (path) svg.append(make("path", { class: `line ${name}`, d: path }));
  };
  const ceiling = (value, least) => {
    const it = Math.max(value, least), unit = 10 ** Math.floor(Math.log10(it));
    return [1, 2, 5, 10].map((n) => n * unit).find((n) => n >= it);
  };
  const name = (svg, text) => svg.setAttribute("aria-label", text);
  const tell = (id, text) => { document.getElementById(id).textContent = text; };

  const draw = () => {
    const verdicts = Object.keys(last.counts.verdicts);
    const total = (point) => verdicts.reduce((sum, it) => sum + point.rates[it], 0);
    const newest = points[points.length - 1];
    let svg = document.getElementById("rate");
    let y = linear(svg, ceiling(Math.max(0, ...points.map(total)), 1), count);
    const below = points.map(() => 0);
    for (const verdict of verdicts) {
      if (!points.some((point) => point.rates[verdict] > 0)) continue;
      const upper = points.map((point, n) => `${x(n).toFixed(1)} ${y(below[n] + point.rates[verdict]).toFixed(1)}`);
      const lower = points.map((_, n) => `${x(n).toFixed(1)} ${y(below[n]).toFixed(1)}`).reverse();
      svg.append(make("path", { class: `fill-${verdict}`, d: `M${upper.concat(lower).join("L")}Z` }));
      points.forEach((point, n) => { below[n] += point.rates[verdict]; });
    }
    name(svg, newest ? `Requests per second: ${count(total(newest))}` : "Requests per second");
    svg = document.getElementById("ratio");
    y = linear(svg, 1, (share) => (share * 100).toFixed(0) + " %");
    line(svg, "line-a", y, (point) => point.ratio);
    name(svg, newest && newest.ratio !== null ? `Hit ratio: ${percent(newest.ratio)}` : "Hit ratio");
    svg = document.getElementById("time");
    y = decades(svg, Math.max(1e-3, ...points.map((point) => Math.min(point.p99 ?? 0, bound()))), time);
    line(svg, "line-c", y, (point) => point.p99);
    line(svg, "line-b", y, (point) => point.p90);
    line(svg, "line-a", y, (point) => point.p50);
    const times = newest && newest.p50 !== null ? `half ${known(newest.p50)}, 99 % ${known(newest.p99)}` : "";
    name(svg, times ? `Time of requests: ${times}` : "Time of requests");
    tell("rate-now", newest ? `${count(total(newest))}, 5xx ${percent(newest.failed)}` : "");
    tell("ratio-now", newest && newest.ratio !== null ? percent(newest.ratio) : "");
    tell("time-now", times);
  };

  const say = (text) => { document.getElementById("live").textContent = text; };
  const update = async () => {
    try {
      const answer = await fetch("/", { cache: "no-store" });
      if (!answer.ok) throw new Error(`answered with ${answer.status}`);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const now = status(page), at = performance.now();
      note(now, (at - lastAt) / 1000);
      [last, lastAt] = [now, at];
      for (const old of document.querySelectorAll("[data-live]")) {
        const fresh = page.getElementById(old.id);
        if (fresh) old.replaceChildren(...fresh.childNodes);
      }
      draw();
      say("Live. Charts: the last three minutes, each point is the mean of two seconds.");
    } catch {
      say("ktrix does not answer; trying again.");
    }
  };
  const button = document.getElementById("pause");
  button.addEventListener("click", () => {
    isPaused = !isPaused;
    button.textContent = isPaused ? "Go on" : "Pause";
    wasAway = true;
    if (isPaused) say("Paused.");
  });
  document.addEventListener("visibilitychange", () => { wasAway = true; });
  button.hidden = false;
  document.getElementById("charts").hidden = false;
  draw();
  say("Live: the first numbers come in two seconds.");
  // One after the other, and none while the page is hidden.
  const next = async () => {
    if (!isPaused && !document.hidden) await update();
    setTimeout(next, EVERY_MS);
  };
  setTimeout(next, EVERY_MS);
})();
