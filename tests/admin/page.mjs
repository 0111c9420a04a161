// Looks at the admin listener of a ktrix with some traffic: promtool must find no fault in its metrics. Its
// page must load and update without an error in the console, show its numbers without a script, have no
// serious fault by axe, and fit into the width of a phone, in light and in dark.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer as createOrigin } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const KTRIX = process.argv[2];
const DEADLINE_MS = 30_000;
const PICTURES = process.env.PICTURES;
const AXE = await readFile(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

const dir = await mkdtemp(join(tmpdir(), "ktrix-admin."));
const children = [];
process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));

async function look() {
  const [port, admin, dead] = [await freePort(), await freePort(), await freePort()];
  const origin = createOrigin((request, answer) => {
    const isPrivate = request.url.startsWith("/private");
    setTimeout(() => {
      answer.writeHead(request.url === "/missing" ? 404 : 200, { "Cache-Control": isPrivate ? "no-store" : "max-age=600" });
      answer.end("x".repeat(2000 + 300 * request.url.length));
    }, isPrivate ? 15 : 3);
  }).listen(0, "127.0.0.1");
  await once(origin, "listening");
  await startKtrix(port, admin, origin.address().port, dead);
  let isOver = false;
  const traffic = ask(`http://127.0.0.1:${port}`, () => isOver);
  const base = `http://127.0.0.1:${admin}`;
  await check(base);
  const browser = await chromium.launch({
    executablePath: execFileSync("which", ["chromium"], { encoding: "utf8" }).trim(),
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
  });
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [360, 768, 1280]) {
      await live(browser, base, { colorScheme, width });
    }
  }
  await withoutScript(browser, base);
  await browser.close();
  isOver = true;
  await traffic;
  origin.close();
}

/** promtool finds no fault in the metrics. */
async function check(base) {
  const text = await (await fetch(`${base}/metrics`)).text();
  await writeFile(join(dir, "metrics"), text);
  const out = execFileSync("promtool", ["check", "metrics"], { input: text, encoding: "utf8" });
  assert.equal(out.trim(), "");
  assert.match(text, /^ktrix_requests_total\{verdict="hit"\} \d+$/m);
}

/** The page with its script. */
async function live(browser, base, { colorScheme, width }) {
  const context = await browser.newContext({ colorScheme, viewport: { width, height: 900 } });
  const page = await context.newPage();
  const errors = [];
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("requestfailed", (request) => errors.push(`${request.url()} failed`));
  page.on("request", (request) => {
    if (!request.url().startsWith(base) && !request.url().startsWith("data:")) errors.push(`${request.url()} is elsewhere`);
  });
  await page.goto(`${base}/`);
  const requests = () => page.locator("#verdicts tr").first().locator("td").first().innerText().then(Number);
  const before = await requests();
  await until("the numbers to change", async () => await requests() > before);
  await page.waitForSelector("#rate path", { state: "attached" });
  await page.waitForSelector("#time path.line-a", { state: "attached" });
  assert.match(await page.locator("#rate").getAttribute("aria-label"), /Requests per second: [\d.]+/);
  // Enough for a picture that shows how it looks after a while.
  await until("some points", async () => (await page.locator("#time path.line-a").getAttribute("d")).split("L").length >= 4);
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(overflow <= 0, `the page is ${overflow} pixels wider than ${width}`);
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document));
  const serious = violations.filter((it) => ["serious", "critical"].includes(it.impact));
  assert.deepEqual(serious.map((it) => [it.id, it.nodes.map((node) => node.html)]), []);
  // Everything that reacts can be reached by keyboard.
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "pause");
  await page.keyboard.press("Enter");
  assert.equal(await page.locator("#pause").innerText(), "Go on");
  assert.equal(await page.locator("#live").innerText(), "Paused.");
  if (PICTURES) {
    await mkdir(PICTURES, { recursive: true });
    await page.screenshot({ path: join(PICTURES, `page-${colorScheme}-${width}.png`), fullPage: true });
  }
  if (colorScheme === "light" && width === 1280) await goesOn(page);
  assert.deepEqual(errors, []);
  await context.close();
}

/** After a pause the charts begin again: no point is the mean of the pause. */
async function goesOn(page) {
  const points = () => page.evaluate(() => document.querySelector("#time path.line-a")?.getAttribute("d").split(/[ML]/).length ?? 0);
  const before = await points();
  // Longer than the time between two points, by which the page knows a pause.
  await new Promise((done) => setTimeout(done, 5000));
  assert.ok(await points() >= before);
  await page.keyboard.press("Enter");
  await until("the charts to begin again", async () => await points() < before);
}

/** The page without its script has the numbers. */
async function withoutScript(browser, base) {
  const context = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 360, height: 900 } });
  const page = await context.newPage();
  await page.goto(`${base}/`);
  const hits = Number(await page.locator("#verdicts tr").first().locator("td").first().innerText());
  assert.ok(hits > 0, `${hits} hits`);
  assert.ok(!await page.locator("#charts").isVisible() && !await page.locator("#pause").isVisible());
  if (PICTURES) await page.screenshot({ path: join(PICTURES, "page-without-script.png"), fullPage: true });
  await context.close();
}

/** Asks for this and that until it is over. */
async function ask(base, isOver) {
  const paths = ["/", "/a", "/b", "/private", "/a", "/missing", "/long/path/of/a/page", "/a"];
  for (let n = 0; !isOver(); n += 1) {
    await Promise.all([0, 1, 2].map(async (more) => {
      // The end of a test that fails must not be taken for its cause.
      const answer = await fetch(base + paths[(n + more) % paths.length]).catch(() => undefined);
      await answer?.arrayBuffer().catch(() => undefined);
    }));
    await new Promise((done) => setTimeout(done, 10));
  }
}

async function startKtrix(port, admin, origin, dead) {
  const file = join(dir, "ktrix.yaml");
  await writeFile(file, `
workers: 2
pid: ${dir}/ktrix.pid
listen: 127.0.0.1:${port}
admin: 127.0.0.1:${admin}
log: {access: ${dir}/access.log, error: ${dir}/error.log}
cache: {path: ${dir}/cache, size: 64 MiB, objects: 1000, memory: 4 MiB}
upstreams:
  app: {servers: ["127.0.0.1:${origin}", "127.0.0.1:${dead}"]}
  images: {servers: ["127.0.0.1:${origin}", {address: "127.0.0.1:${dead}", drain: on}]}
upstream: app
sites: [{hosts: [img.example.com], routes: [{path: /, upstream: images}]}]
`);
  const child = spawn(KTRIX, [file], { stdio: "inherit" });
  children.push(child);
  const isThere = (url) => fetch(url).then((answer) => answer.arrayBuffer()).then(() => true, () => false);
  await until("ktrix to serve", async () => await isThere(`http://127.0.0.1:${admin}/healthz`) && await isThere(`http://127.0.0.1:${port}/`));
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

async function until(what, holds) {
  const end = Date.now() + DEADLINE_MS;
  while (!await holds()) {
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

try {
  await look();
  console.log("the admin listener: metrics and page are in order");
} finally {
  const ended = children.map((child) => (child.exitCode ?? child.signalCode) || once(child, "exit"));
  children.forEach((child) => child.kill("SIGTERM"));
  await Promise.all(ended);
  await rm(dir, { recursive: true, force: true });
}
