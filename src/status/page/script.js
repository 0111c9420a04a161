"use strict";
// Fetches this page again every two seconds, takes its numbers over, and draws what changed between two
// of them. Everything else works without it.
(() => {
  const EVERY_MS = 2000, N_POINTS = 90, WIDTH = 320, HEIGHT = 130, LEFT = 44;
  const SVG = "http://www.w3.org/2000/svg";
  const points = [];
  const status = (page) => JSON.parse(page.getElementById("data").textContent);
  let last = status(document), lastAt = performance.now(), isPaused = false;

  const make = (name, attributes, text) => {
    const it = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) it.setAttribute(key, value);
    if (text !== undefined) it.textContent = text;
    return it;
  };
  const count = (n) => n >= 1e6 ? (n / 1e6).toFixed(1) + " M" : n >= 1e4 ? (n / 1e3).toFixed(0) + " k"
    : n >= 10 || n === 0 ? n.toFixed(0) : n.toFixed(1);
  const time = (s) => s >= 1 ? s.toFixed(1) + " s" : s >= 1e-3 ? (s * 1e3).toFixed(1) + " ms"
    : (s * 1e6).toFixed(0) + " µs";
  const percent = (share) => (share * 100).toFixed(1) + " %";

  // The value that this share of all is below, from the buckets of a histogram.
  const quantile = (buckets, bounds, share) => {
    const wanted = share * buckets.reduce((sum, n) => sum + n, 0);
    if (wanted === 0) return null;
    let below = 0, lower = 0;
    for (let n = 0; n < bounds.length; n += 1) {
      if (buckets[n] > 0 && below + buckets[n] >= wanted) {
        return lower + (wanted - below) / buckets[n] * (bounds[n] - lower);
      }
      below += buckets[n];
      lower = bounds[n];
    }
    return lower;
  };

  const note = (now, seconds) => {
    const [a, b] = [last.counts, now.counts];
    // A ktrix that was started again counts from the beginning.
    if (now.since_s !== last.since_s || seconds <= 0) return;
    const rates = {};
    for (const verdict of Object.keys(b.verdicts)) {
      rates[verdict] = Math.max(0, b.verdicts[verdict] - a.verdicts[verdict]) / seconds;
    }
    const hits = rates.hit + rates.stale, looked = hits + rates.miss + rates.revalidated;
    const buckets = b.duration_buckets.map((n, at) => Math.max(0, n - a.duration_buckets[at]));
    const of = (share) => quantile(buckets, b.duration_bounds_s, share);
    points.push({ rates, ratio: looked > 0 ? hits / looked : null, p50: of(.5), p90: of(.9), p99: of(.99) });
    if (points.length > N_POINTS) points.shift();
  };

  const x = (n) => LEFT + (N_POINTS - points.length + n) / (N_POINTS - 1) * (WIDTH - LEFT);
  const frame = (svg, top, show) => {
    svg.replaceChildren();
    for (const share of [0, .5, 1]) {
      const y = HEIGHT - share * (HEIGHT - 12);
      svg.append(make("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: y, y2: y }));
      svg.append(make("text", { x: LEFT - 5, y: y + 4, "text-anchor": "end" }, show(top * share)));
    }
    return (value) => HEIGHT - Math.min(1, value / top) * (HEIGHT - 12);
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

  const draw = () => {
    const verdicts = Object.keys(last.counts.verdicts);
    const total = (point) => verdicts.reduce((sum, it) => sum + point.rates[it], 0);
    const newest = points[points.length - 1];
    let svg = document.getElementById("rate");
    let y = frame(svg, ceiling(Math.max(0, ...points.map(total)), 1), count);
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
    y = frame(svg, 1, (share) => (share * 100).toFixed(0) + " %");
    line(svg, "line-a", y, (point) => point.ratio);
    name(svg, newest && newest.ratio !== null ? `Hit ratio: ${percent(newest.ratio)}` : "Hit ratio");
    svg = document.getElementById("time");
    y = frame(svg, ceiling(Math.max(0, ...points.map((point) => point.p99 ?? 0)), 1e-4), time);
    line(svg, "line-c", y, (point) => point.p99);
    line(svg, "line-b", y, (point) => point.p90);
    line(svg, "line-a", y, (point) => point.p50);
    const known = newest && newest.p50 !== null;
    name(svg, known ? `Time of requests: half below ${time(newest.p50)}, 99 % below ${time(newest.p99)}` : "Time of requests");
    document.getElementById("per-second").textContent = newest ? `${count(total(newest))} per second` : "";
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
      say("Live: the numbers of two seconds.");
    } catch {
      say("ktrix does not answer; trying again.");
    }
  };
  const button = document.getElementById("pause");
  button.addEventListener("click", () => {
    isPaused = !isPaused;
    button.textContent = isPaused ? "Go on" : "Pause";
    if (isPaused) say("Paused.");
  });
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
