/** The server behind a real nginx (on the PATH or in /usr/sbin) with the configuration in deploy/nginx, TLS included. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import type { ClientRequest, IncomingMessage } from "node:http"
import { request } from "node:https"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { freePort } from "../src/free-port.ts"
import { testServer } from "../src/http/testing.ts"

const answers = (program: string, flag: string) => spawnSync(program, [flag]).status === 0
const nginx = ["nginx", "/usr/sbin/nginx"].find((program) => answers(program, "-v"))
const found = nginx !== undefined && answers("openssl", "version")
if (!found) console.log("there is no nginx or no openssl here: the server is not tried behind them")

describe.skipIf(!found)("behind nginx", () => {
  const folder = mkdtempSync(join(tmpdir(), "slos-nginx-"))
  let server: Awaited<ReturnType<typeof testServer>>
  let proxy: ChildProcess
  let port = 0
  let ca = ""

  beforeAll(async () => {
    const cost = {
      pieces: [{ step: 20_000, tokens: 5 }],
      residualSigma: 0.05,
      fastPassTokens: 1,
      unifiedKv: true,
    }
    server = await testServer({ listen: true, fake: { cost } })
    port = await freePort()
    const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")]
    const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    const made = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    execFileSync("openssl", ["req", ...made, "-keyout", key, "-out", cert, ...subject], { stdio: "ignore" })
    ca = readFileSync(cert, "utf8")
    const ours = readFileSync(join(import.meta.dirname, "nginx/slos-serve.conf"), "utf8")
      .replace("127.0.0.1:8080", new URL(server.url).host)
      .replace("listen 443", `listen 127.0.0.1:${port}`)
      .replace(/ssl_certificate .*;/, `ssl_certificate ${cert};`)
      .replace(/ssl_certificate_key .*;/, `ssl_certificate_key ${key};`)
    const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
      .map((name) => `${name}_temp_path ${folder}/${name};`)
      .join(" ")
    // As distributions have it: zipped by default.
    const rest = `gzip on; gzip_types text/event-stream application/json; access_log off; ${paths}`
    // Its workers would be of another user then, without a way into this folder.
    const user = process.getuid?.() === 0 ? "user root;" : ""
    const main = `${user} pid ${folder}/pid; daemon off; events {} http { ${rest} ${ours} }`
    writeFileSync(join(folder, "nginx.conf"), main)
    const args = ["-c", join(folder, "nginx.conf"), "-p", folder, "-e", "stderr"]
    const checked = spawnSync(nginx!, ["-t", ...args], { encoding: "utf8" })
    expect(checked.status, checked.stderr).toBe(0)
    proxy = spawn(nginx!, args, { stdio: "ignore" })
    while (!(await get("/health").catch(() => null))) await new Promise((done) => setTimeout(done, 50))
  })
  afterAll(async () => {
    proxy?.kill("SIGQUIT")
    await server?.close()
    rmSync(folder, { recursive: true, force: true })
  })

  function ask(path: string, method = "GET"): { sent: ClientRequest; answer: Promise<IncomingMessage> } {
    const headers = { "content-type": "application/json", "accept-encoding": "gzip" }
    const sent = request({ host: "127.0.0.1", port, servername: "localhost", ca, path, method, headers })
    const answer = new Promise<IncomingMessage>((found, failed) =>
      sent.on("response", found).on("error", failed),
    )
    return { sent, answer }
  }

  async function get(path: string): Promise<number> {
    const { sent, answer } = ask(path)
    sent.end()
    const { statusCode } = (await answer).resume()
    return statusCode!
  }

  async function stream(tokens: number) {
    const { sent, answer } = ask("/v1/completions", "POST")
    sent.end(JSON.stringify({ prompt: "hi", stream: true, max_tokens: tokens, ignore_eos: true }))
    return { sent, response: await answer }
  }
  const running = () => server.driver.snapshot().running

  it("tokens come as they are made, unzipped", async () => {
    const { response } = await stream(100)
    expect(response.headers["content-encoding"]).toBeUndefined()
    const pieces: string[] = []
    for await (const piece of response.setEncoding("utf8")) {
      // It is far from done when the first of them is here.
      if (pieces.length === 0) expect(running()).toBe(1)
      pieces.push(piece as string)
    }
    expect(pieces.length).toBeGreaterThan(50)
    expect(pieces.join("")).toMatch(/"finish_reason":"length"[\s\S]*data: \[DONE\]\n\n$/)
  })

  it("a client that goes frees its place", async () => {
    const { sent, response } = await stream(900)
    response.on("error", () => {})
    await new Promise((first) => response.once("data", first))
    expect(running()).toBe(1)
    sent.destroy()
    await expect.poll(running).toBe(0)
  })

  it("bodies of several megabytes pass, and what is too large is the server's to say", async () => {
    const post = async (bytes: number) => {
      const { sent, answer } = ask("/v1/completions", "POST")
      sent.on("error", () => {})
      sent.end(JSON.stringify({ prompt: "x".repeat(bytes) }))
      const response = await answer
      let text = ""
      for await (const piece of response.setEncoding("utf8")) text += piece
      expect(response.statusCode, text).toBeOneOf([400, 413])
      return JSON.parse(text) as { error: { type: string } }
    }
    for (const bytes of [4e6, 9e6]) expect((await post(bytes)).error.type).toBe("invalid_request_error")
  })

  it("what is not for clients is not there", async () => {
    expect(await get("/v1/models")).toBe(200)
    for (const path of ["/metrics", "/v1/slo/status", "/v1/slo/requests", "/v1/slo/arrivals"])
      expect(await get(path), path).toBe(404)
  })
})
