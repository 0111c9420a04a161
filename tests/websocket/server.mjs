// A server of the library `ws`: it gives messages back, and closes as it is told to.

import { WebSocketServer } from "ws";

let lastCode = 0;
const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  maxPayload: 1 << 30,
  perMessageDeflate: true,
});
server.on("listening", () => console.log(server.address().port));
server.on("connection", (socket) => {
  socket.on("message", (data, isBinary) => {
    const text = isBinary || data.length > 64 ? "" : data.toString();
    if (text.startsWith("close ")) socket.close(Number(text.slice(6)), "as told");
    else if (text === "code of the last close") socket.send(String(lastCode));
    else socket.send(data, { binary: isBinary });
  });
  socket.on("close", (code) => (lastCode = code));
});
