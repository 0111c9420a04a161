// Browses the pages of a site (site/) in headless Chromium: from nginx itself, through a ktrix that has it
// under another prefix, once more when ktrix has stored what may be stored, and both again over HTTPS by
// HTTP/2. All must give the same pictures of the pages, the same cookies and the same requests: URLs,
// methods, statuses, sizes.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const KTRIX = process.argv[2];
const HERE = import.meta.dirname ?? new URL(".", import.meta.url).pathname;
const DEADLINE_MS = 30_000;

/** The pages, below the prefix. What leads from one to the next is what a browser does by itself. */
const PAGES = [
  "", // the front page: styles, pictures, a script that fetches data, a first cookie
  "old", // a redirect to a page, by a path
  "catalogue", // a redirect to the folder, by an absolute URL
  "welcome", // what the cookie of the front page shows
  "order.html", // a form that sends itself by POST, and a redirect to its thanks
  "missing.html", // the error page of nginx
];

const children = [];
const dir = await mkdtemp(join(tmpdir(), "ktrix-browser."));

async function compare() {
  const [origin, proxy, secured] = [await freePort(), await freePort(), await freePort()];
  await startNginx(origin);
  await startKtrix(proxy, secured, origin);
  const chromium = await Chromium.start();
  const direct = await browse(chromium, `http://127.0.0.1:${origin}/app/`);
  const cold = await browse(chromium, `http://127.0.0.1:${proxy}/shop/`);
  const stored = await browse(chromium, `http://127.0.0.1:${proxy}/shop/`);
  const securedCold = await browse(chromium, `https://127.0.0.1:${secured}/shop/`);
  const securedStored = await browse(chromium, `https://127.0.0.1:${secured}/shop/`);
  PAGES.forEach((page, at) => {
    const expected = direct[at];
    assert.ok(expected.requests.length > 0, page);
    const all = { cold, stored, "cold by HTTPS": securedCold, "stored by HTTPS": securedStored };
    for (const [name, pages] of Object.entries(all)) {
      const found = pages[at];
      const where = `/${page}, ${name}`;
      assert.deepEqual(found.requests, expected.requests, where);
      assert.deepEqual(found.cookies, expected.cookies, where);
      assert.equal(found.text, expected.text, where);
      assert.ok(found.picture.equals(expected.picture), `${where}: the pictures differ`);
    }
  });
  for (const pages of [stored, securedStored]) {
    const hits = pages.reduce((sum, page) => sum + page.hits, 0);
    assert.ok(hits >= 5, `${hits} hits`);
  }
  const protocols = new Set(securedStored.flatMap((page) => page.protocols));
  assert.deepEqual([...protocols], ["h2"]);
  const n = direct.reduce((sum, page) => sum + page.requests.length, 0);
  console.log(`${PAGES.length} pages, ${n} requests: the same as without ktrix`);
}

/** Visits all pages in a browser without a past, and gives what each of them cost and looked like. */
async function browse(chromium, base) {
  const { browserContextId } = await chromium.call("Target.createBrowserContext");
  const { targetId } = await chromium.call("Target.createTarget", {
    url: "about:blank", browserContextId, width: 800, height: 600,
  });
  const { sessionId } = await chromium.call("Target.attachToTarget", { targetId, flatten: true });
  const call = (method, params) => chromium.call(method, params, sessionId);
  const requests = new Map();
  chromium.listen(sessionId, (method, event) => note(requests, base, method, event));
  await call("Network.enable");
  await call("Page.enable");
  const seen = [];
  for (const page of PAGES) {
    requests.clear();
    await call("Page.navigate", { url: base + page });
    await until(`${base}${page} to be shown`, async () => {
      const expression = "document.readyState === 'complete' && document.title";
      const { result } = await call("Runtime.evaluate", { expression });
      const all = [...requests.values()].flat();
      return all.length > 0 && all.every((request) => request.isDone)
        && result.value && !["loading", "sending"].includes(result.value);
    });
    const { data } = await call("Page.captureScreenshot", { format: "png" });
    const text = await call("Runtime.evaluate", { expression: "document.body.innerText" });
    const { cookies } = await call("Network.getCookies");
    const prefix = new URL(base).pathname;
    // A page that names no icon makes the browser ask for one outside of the site.
    const own = [...requests.values()].flat().filter(({ url }) => !url.endsWith("/favicon.ico"));
    const told = own.map(({ isDone, isHit, protocol, ...request }) => request);
    told.sort((one, other) => JSON.stringify(one).localeCompare(JSON.stringify(other)));
    seen.push({
      requests: told,
      hits: own.filter(({ isHit }) => isHit).length,
      protocols: own.map(({ protocol }) => protocol).filter((protocol) => protocol !== undefined),
      cookies: cookies.map(({ name, value, path }) => [name, value, path.replace(prefix, "/")]).sort(),
      picture: Buffer.from(data, "base64"),
      text: text.result.value,
    });
  }
  await call("Page.close");
  await chromium.call("Target.disposeBrowserContext", { browserContextId });
  return seen;
}

/** Notes an event of the network: a request has an entry, and each redirect before it another one. */
function note(requests, base, method, event) {
  const own = (url) => url.replace(base, "").replace(base.replace(/\/$/, ""), "");
  const list = requests.get(event.requestId) ?? [];
  const last = list.at(-1);
  switch (method) {
    case "Network.requestWillBeSent":
      if (event.redirectResponse && last) {
        Object.assign(last, answer(event.redirectResponse), { isDone: true });
      }
      list.push({ method: event.request.method, url: own(event.request.url), isDone: false });
      requests.set(event.requestId, list);
      break;
    case "Network.responseReceived":
      if (last) {
        const { headers, protocol } = event.response;
        const told = headers["Cache-Status"] ?? headers["cache-status"] ?? "";
        Object.assign(last, answer(event.response), { isHit: told.includes("; hit"), protocol });
      }
      break;
    case "Network.dataReceived":
      // The decoded bytes: chunks and codings may be others.
      if (last) last.bytes = (last.bytes ?? 0) + event.dataLength;
      break;
    case "Network.loadingFinished":
    case "Network.loadingFailed":
      if (last) Object.assign(last, { isDone: true, error: event.errorText });
      break;
  }
}

function answer({ status, mimeType }) {
  return { status, type: mimeType };
}

async function startNginx(port) {
  const site = join(dir, "site");
  await cp(join(HERE, "site"), join(site, "app"), { recursive: true });
  await cp(join(HERE, "../../src/cli/demo/picture.png"), join(site, "app/picture.png"));
  await mkdir(join(dir, "nginx"));
  const config = (await readFile(join(HERE, "nginx.conf"), "utf8"))
    .replaceAll("PORT", port).replaceAll("SITE", site).replaceAll("DIR", join(dir, "nginx"));
  await writeFile(join(dir, "nginx.conf"), config);
  run("nginx", ["-p", join(dir, "nginx"), "-c", join(dir, "nginx.conf"), "-e", join(dir, "nginx/error.log")]);
  await listening(port);
}

async function startKtrix(port, secured, origin) {
  const [certificate, key] = [join(dir, "certificate.pem"), join(dir, "key.pem")];
  execFileSync("openssl", [
    "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=127.0.0.1",
    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate,
  ], { stdio: "ignore" });
  const config = join(dir, "ktrix.yaml");
  await writeFile(config, `
workers: 2
listen:
  - 127.0.0.1:${port}
  - {address: "127.0.0.1:${secured}", tls: {certificates: {certificate: ${certificate}, key: ${key}}}}
pid: off
log: {error: stderr, level: warn}
cache: ${dir}/cache
upstreams:
  app: {servers: ["127.0.0.1:${origin}"]}
sites:
  - routes:
      - {path: /shop/, upstream: app, host: upstream, rewrite: {strip: /shop, add: /app}}
`);
  run(KTRIX, [config]);
  await listening(port);
}

function run(command, args, stdio = ["ignore", "inherit", "inherit"]) {
  const child = spawn(command, args, { stdio });
  child.on("error", (error) => { throw error; });
  children.push(child);
  return child;
}

/** A Chromium that is spoken to over its pipe, in JSON that ends with a zero. */
class Chromium {
  static async start() {
    const child = run("chromium", [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
      "--no-first-run", "--ignore-certificate-errors", "--disable-background-networking", "--disable-component-update",
      `--user-data-dir=${dir}/chromium`, "--remote-debugging-pipe",
    ], ["ignore", "ignore", "ignore", "pipe", "pipe"]);
    return new Chromium(child.stdio[3], child.stdio[4]);
  }

  constructor(to, from) {
    this.to = to;
    this.calls = new Map();
    this.listeners = new Map();
    this.id = 0;
    let rest = "";
    from.setEncoding("utf8");
    from.on("data", (text) => {
      const messages = (rest + text).split("\0");
      rest = messages.pop();
      messages.forEach((message) => this.take(JSON.parse(message)));
    });
  }

  take({ id, sessionId, method, params, result, error }) {
    if (id === undefined) return this.listeners.get(sessionId)?.(method, params);
    const { done, fail } = this.calls.get(id);
    this.calls.delete(id);
    return error ? fail(new Error(error.message)) : done(result);
  }

  listen(sessionId, listener) {
    this.listeners.set(sessionId, listener);
  }

  call(method, params = {}, sessionId = undefined) {
    const id = ++this.id;
    this.to.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((done, fail) => {
      const late = setTimeout(() => fail(new Error(`${method} has no answer`)), DEADLINE_MS);
      const end = (how) => (value) => { clearTimeout(late); how(value); };
      this.calls.set(id, { done: end(done), fail: end(fail) });
    });
  }
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

async function listening(port) {
  await until(`port ${port}`, () => new Promise((done) => {
    const socket = connect(port, "127.0.0.1");
    socket.on("connect", () => { socket.destroy(); done(true); });
    socket.on("error", () => done(false));
  }));
}

async function until(what, holds) {
  const end = Date.now() + DEADLINE_MS;
  while (!await holds()) {
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));
try {
  await compare();
} finally {
  const ended = children.map((child) => (child.exitCode ?? child.signalCode) || once(child, "exit"));
  children.forEach((child) => child.kill("SIGTERM"));
  await Promise.race([Promise.all(ended), new Promise((done) => setTimeout(done, 5_000).unref())]);
  await rm(dir, { recursive: true, force: true, maxRetries: 3 });
}
