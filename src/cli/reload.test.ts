/** SIGHUP to a real server under load, and its certificate: what changes, what does not, and that no stream is cut. */
import { execFileSync, spawnSync } from "node:child_process"
import { once } from "node:events"
import { copyFileSync, readFileSync, writeFileSync } from "node:fs"
import { request } from "node:https"
import { join } from "node:path"
import { connect } from "node:tls"
import { describe, expect, it } from "vitest"
import { FakeBackend } from "../fleet/backends/testing.ts"
import { by, complete, folder, HEADERS, keys, MAIN, serve, start } from "./reload-testing.ts"

describe.each([
  ["one process", []],
  ["workers", ["--replicas", "2"]],
])("SIGHUP to a server of %s", (_, more) => {
  it("changes classes, keys, tenants and limits at once; streams go on to their ends", async () => {
    const path = join(folder, `live${more.length}.yaml`)
    const classes = "classes:\n  chat: {ttft: 5x, tpot: 100ms}\n  old: {tpot: 90ms}\n"
    writeFileSync(path, `${classes}${keys("a", "b")}`)
    const { child, url, exit, hup, said } = await serve("--config", path, ...more)
    const long = { stream: true, max_tokens: 250, ignore_eos: true }
    const streams = await Promise.all(
      Array.from({ length: 6 }, (_, i) =>
        complete(url, i % 2 ? "sk-a" : "sk-b", { ...long, slo: { class: "old" } }),
      ),
    )
    for (const stream of streams) expect(stream.status).toBe(200)
    // Key b and a class go, key c with a tenant and limits, and a class come; a class changes.
    writeFileSync(
      path,
      "classes:\n  fast: {tpot: 20ms}\n  chat: {ttft: 1s, tpot: 70ms}\n" +
        `${keys("a", "c")}tenants: {c: {weight: 4}}\n` +
        "limits: {max_queue: 7, body_limit: 2k}\nengine: {max_sequences: 5}\n",
    )
    const told = await hup()
    expect(told).toContain(
      `${path} is read again: changed: limits.max_queue, limits.body_limit, tenants, keys, classes`,
    )
    expect(told).toContain("only a restart changes engine.max_sequences")
    expect((await complete(url, "sk-b")).status).toBe(401)
    expect((await complete(url, "sk-c", { slo: { class: "fast" } })).status).toBe(200)
    expect((await complete(url, "sk-a", { slo: { class: "old" } })).status).toBe(400)
    expect((await complete(url, "sk-a", { prompt: "x".repeat(4000) })).status).toBe(413)
    const status = (await (await fetch(`${url}/v1/slo/status`)).json()) as {
      tenants: object[]
      classes: { name: string; tpot_ms: number }[]
    }
    expect(status.tenants).toContainEqual(expect.objectContaining({ name: "c", weight: 4, output_tokens: 3 }))
    expect(status.classes.map((one) => [one.name, one.tpot_ms])).toEqual([
      ["fast", 20],
      ["chat", 70],
    ])
    const metrics = await (await fetch(`${url}/metrics`)).text()
    expect(metrics).toMatch(/^slos_serve_queue_places 7$/m)
    expect(metrics).toMatch(/slos_serve_requests_total\{class="fast",attained="\w+"\} 1/)
    for (const stream of streams) {
      const text = await stream.text()
      expect(text).toContain('"finish_reason":"length"')
      expect(text.trimEnd()).toMatch(/data: \[DONE\]$/)
      expect(text).toContain('"class":"old"')
    }
    const ended = await (await fetch(`${url}/metrics`)).text()
    expect(ended).toMatch(/slos_serve_(requests|stages)_total\{class="old"/)
    expect(said()).not.toContain("sk-")
    child.kill("SIGTERM")
    expect(await exit).toBe(0)
  })
})

it("changes keys and limits of a gateway, whose streams go on at their engines", async () => {
  const backend = await FakeBackend.open({ words: 8 })
  const goOn = backend.hold()
  try {
    const path = join(folder, "gateway.yaml")
    writeFileSync(path, `backends: [{url: "${backend.url}"}]\n${keys("a", "b")}`)
    const { child, url, exit, hup } = await start("--config", path)
    const streams = await Promise.all(
      ["sk-a", "sk-b"].map((key) => complete(url, key, { stream: true, max_tokens: 50 })),
    )
    for (const stream of streams) expect(stream.status).toBe(200)
    writeFileSync(
      path,
      `backends: [{url: "http://127.0.0.1:9"}]\n${keys("a", "c")}limits: {max_queue: 7, stored_responses: 3}\n`,
    )
    const told = await hup()
    expect(told).toContain("changed: limits.max_queue, tenants, keys")
    expect(told).toMatch(/only a restart changes .*limits\.stored_responses/)
    expect(told).toMatch(/only a restart changes .*backends/)
    await expect.poll(() => backend.live).toBe(2)
    goOn()
    expect((await complete(url, "sk-b")).status).toBe(401)
    expect((await complete(url, "sk-c")).status).toBe(200)
    expect(await (await fetch(`${url}/metrics`)).text()).toMatch(/^slos_serve_queue_places 7$/m)
    for (const stream of streams) {
      const text = await stream.text()
      expect(text).toContain("eight")
      expect(text.trimEnd()).toMatch(/data: \[DONE\]$/)
    }
    child.kill("SIGTERM")
    expect(await exit).toBe(0)
  } finally {
    await backend.close()
  }
})

it("keeps what it has where the file is wrong, and says why; flags are stronger than the file", async () => {
  const path = join(folder, "wrong.yaml")
  writeFileSync(path, `limits: {max_queue: 5}\n${keys("a")}`)
  const { child, url, exit, hup } = await serve("--config", path, "--max-queue", "9")
  for (const [text, why] of [
    [
      "limits: {max_queu: 5}\n",
      /wrong\.yaml:1:10: limits\.max_queu is not a field this server knows \(did you mean max_queue\?\)/,
    ],
    [`${keys("b")}    x: 1\n`, /wrong\.yaml:\d+:\d+: /],
    [`tls: {cert: /none}\n${keys("b")}`, /only a restart changes tls\.cert/],
  ] as const) {
    writeFileSync(path, text)
    const told = await hup()
    expect(told).toMatch(why)
    if (text.startsWith("tls")) continue
    expect(told).toContain("all stays as it was")
    expect((await complete(url, "sk-a")).status).toBe(200)
    expect((await complete(url, "sk-b")).status).toBe(401)
  }
  expect((await complete(url, "sk-b")).status).toBe(200)
  expect(await (await fetch(`${url}/metrics`)).text()).toMatch(/^slos_serve_queue_places 9$/m)
  child.kill("SIGTERM")
  expect(await exit).toBe(0)
})

it("asks for keys on the routes that are protected, and for its own host", async () => {
  const path = join(folder, "protect.yaml")
  writeFileSync(path, `access: {protect: [metrics, status]}\n${keys("a")}`)
  const { child, url, exit, hup } = await serve("--config", path)
  const statusOf = async (route: string, headers = {}) => (await fetch(url + route, { headers })).status
  for (const route of ["/metrics", "/v1/slo/status", "/v1/slo/arrivals"]) {
    expect(await statusOf(route)).toBe(401)
    expect(await statusOf(route, by("sk-a"))).toBe(200)
  }
  for (const route of ["/health", "/ready", "/"]) expect(await statusOf(route)).toBe(200)
  writeFileSync(path, `access: {protect: [health], allowed_hosts: [llm.example]}\n${keys("a")}`)
  expect(await hup()).toContain("changed: access.allowed_hosts, access.protect")
  expect([await statusOf("/metrics"), await statusOf("/health"), await statusOf("/ready")]).toEqual([
    200, 401, 401,
  ])
  child.kill("SIGTERM")
  expect(await exit).toBe(0)
})

const HAS_OPENSSL = spawnSync("openssl", ["version"]).status === 0

describe.skipIf(!HAS_OPENSSL)("TLS", () => {
  const make = (name: string) => {
    const [cert, key] = [join(folder, `${name}.crt`), join(folder, `${name}.key`)]
    const made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    const subject = ["-subj", `/CN=${name}`, "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    execFileSync("openssl", [...made, ...subject, "-keyout", key, "-out", cert, "-days", "2"], {
      stdio: "ignore",
    })
    return { cert, key }
  }
  const nameOf = (port: number) =>
    new Promise<string>((resolve, reject) => {
      const socket = connect({ host: "127.0.0.1", port, rejectUnauthorized: false }, () => {
        resolve(socket.getPeerCertificate().subject.CN as string)
        socket.destroy()
      })
      socket.on("error", reject)
    })
  const stream = (port: number, ca: string) =>
    new Promise<{ first: Promise<unknown>; text: Promise<string> }>((resolve, reject) => {
      const asked = request(
        { host: "127.0.0.1", port, path: "/v1/completions", method: "POST", headers: HEADERS, ca },
        (answer) => {
          let text = ""
          answer.on("data", (piece) => (text += piece))
          resolve({ first: once(answer, "data"), text: once(answer, "end").then(() => text) })
        },
      )
      asked.on("error", reject)
      asked.end(JSON.stringify({ prompt: "hi", stream: true, max_tokens: 400, ignore_eos: true }))
    })

  it("has a certificate that is replaced while a stream goes on", async () => {
    const [one, two] = [make("one"), make("two")]
    const [cert, key] = [join(folder, "tls.crt"), join(folder, "tls.key")]
    copyFileSync(one.cert, cert)
    copyFileSync(one.key, key)
    const { child, url, exit, hup, said } = await serve("--tls-cert", cert, "--tls-key", key)
    expect(url).toMatch(/^https:/)
    const port = Number(new URL(url).port)
    const { first, text } = await stream(port, readFileSync(one.cert, "utf8"))
    await first
    expect(await nameOf(port)).toBe("one")
    // Half of a pair is none.
    copyFileSync(two.cert, cert)
    await hup()
    await expect.poll(said).toMatch(/the one before is kept: TLS: .* are no certificate and its key/)
    expect(await nameOf(port)).toBe("one")
    // Seen without a signal.
    copyFileSync(two.key, key)
    await expect.poll(() => nameOf(port), { interval: 200 }).toBe("two")
    expect(await text).toMatch(/data: \[DONE\]\n\n$/)
    expect(said()).not.toContain("PRIVATE KEY")
    child.kill("SIGTERM")
    expect(await exit).toBe(0)
  })

  it.each([
    [["--tls-cert", "x"], /--tls-cert and --tls-key belong together/],
    [["--tls-cert", "/none", "--tls-key", "/none"], /TLS: cannot read the certificate \/none \(ENOENT\)/],
    [["--tls-cert", MAIN, "--tls-key", MAIN], /are no certificate and its key/],
  ])("%j is one line", (args, message) => {
    const run = spawnSync(process.execPath, [MAIN, "serve", "--engine", "fake", "--port", "0", ...args], {
      encoding: "utf8",
    })
    expect(run.status).toBe(2)
    expect(run.stderr).toMatch(message)
    expect(run.stderr.trim().split("\n")).toHaveLength(1)
  })
})
