// A client of the library `ws`, at each of the URLs; and one of HTTP/2 that asks by CONNECT (RFC 8441).

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import http2 from "node:http2";
import WebSocket from "ws";

const LARGE = 16 << 20;

async function open(url) {
  const socket = new WebSocket(url, { rejectUnauthorized: false, maxPayload: 1 << 30 });
  await once(socket, "open");
  return socket;
}

async function expectEcho(socket, message) {
  const answer = once(socket, "message");
  socket.send(message);
  const [data, isBinary] = await answer;
  assert.equal(isBinary, typeof message !== "string");
  assert.ok(Buffer.from(message).equals(data), `${message.length} bytes came back otherwise`);
}

async function talk(url) {
  const socket = await open(url);
  await expectEcho(socket, "hello");
  await expectEcho(socket, randomBytes(100_000));
  await expectEcho(socket, randomBytes(LARGE));
  const joined = once(socket, "message");
  for (const [part, fin] of [["one ", false], ["two ", false], ["three", true]]) {
    socket.send(part, { fin, compress: false });
  }
  assert.equal((await joined)[0].toString(), "one two three");
  const pong = once(socket, "pong");
  socket.ping("still there");
  assert.equal((await pong)[0].toString(), "still there");
  const closed = once(socket, "close");
  socket.send("close 4002");
  const [code, reason] = await closed;
  assert.deepEqual([code, reason.toString()], [4002, "as told"]);
  const second = await open(url);
  const end = once(second, "close");
  second.close(4001, "enough");
  await end;
  const third = await open(url);
  for (let lastCode = ""; lastCode !== "4001"; ) {
    const answer = once(third, "message");
    third.send("code of the last close");
    lastCode = (await answer)[0].toString();
  }
  third.terminate();
}

// A whole text message of a client, with a mask of zeros.
function frame(text) {
  const bytes = Buffer.from(text);
  return Buffer.concat([Buffer.from([0x81, 0x80 | bytes.length, 0, 0, 0, 0]), bytes]);
}

async function talkByHttp2(url) {
  const { protocol, host, pathname } = new URL(url);
  const scheme = protocol === "wss:" ? "https" : "http";
  const session = http2.connect(`${scheme}://${host}`, { rejectUnauthorized: false });
  await once(session, "remoteSettings");
  assert.ok(session.remoteSettings.enableConnectProtocol);
  const stream = session.request({
    ":method": "CONNECT",
    ":protocol": "websocket",
    ":scheme": scheme,
    ":path": pathname,
    "sec-websocket-version": "13",
  });
  const [head] = await once(stream, "response");
  assert.equal(head[":status"], 200);
  for (const text of ["hello", "over HTTP/2"]) {
    const answer = once(stream, "data");
    stream.write(frame(text));
    const [bytes] = await answer;
    assert.ok(bytes.equals(Buffer.concat([Buffer.from([0x81, text.length]), Buffer.from(text)])));
  }
  const closed = once(stream, "data");
  stream.write(Buffer.from([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]));
  assert.deepEqual([...(await closed)[0]], [0x88, 0x02, 0x03, 0xe8]);
  stream.end();
  stream.resume();
  await once(stream, "close");
  const refused = session.request({ ":method": "CONNECT", ":protocol": "connect-udp", ":scheme": scheme, ":path": "/" });
  assert.equal((await once(refused, "response"))[0][":status"], 501);
  refused.close();
  session.close();
}

for (const url of process.argv.slice(2)) {
  await talk(url);
  await talkByHttp2(url);
  console.log(`ws and HTTP/2: ${url}`);
}
