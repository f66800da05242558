// Fetches a page and tells what this end of the connection sees of it.
const http = require("node:http");

const show = (host, port) => (host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`);
const tell = (seen) => console.log(JSON.stringify(seen));

const [host, port] = process.argv.slice(2);
const request = http.get({ host, port, timeout: 5000 }, (response) => {
  const { localAddress, localPort, remoteAddress, remotePort } = response.socket;
  let answer = "";
  response.on("data", (part) => (answer += part));
  response.on("end", () =>
    tell({ page: { local: show(localAddress, localPort), peer: show(remoteAddress, remotePort), answer } }),
  );
});
request.on("timeout", () => request.destroy(Object.assign(new Error(), { code: "ETIMEDOUT" })));
request.on("error", (error) => tell({ error: error.code }));
