/** The serve command as a user runs it: one line and exit code 2 for what the user can put right, a drained exit. */
import { type ChildProcess, spawn } from "node:child_process"
import { mkdtempSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { TINY_PRESETS, tinyModel } from "../models/tiny.ts"

const MAIN = new URL("./main.ts", import.meta.url).pathname
const folder = mkdtempSync(join(tmpdir(), "slos-serve-test-"))
const running = new Set<ChildProcess>()
afterAll(() => {
  for (const child of running) child.kill("SIGKILL")
})

interface Run {
  child: ChildProcess
  out: () => string
  exit: Promise<Exit>
}

interface Exit {
  code: number | null
  signal: NodeJS.Signals | null
  out: string
  err: string
}

function run(...args: string[]): Run {
  return runWith({}, ...args)
}

/** `node`: options of Node's own. */
function runWith(
  { node = [], own = {} }: { node?: readonly string[]; own?: NodeJS.ProcessEnv },
  ...args: string[]
): Run {
  const env = {
    ...process.env,
    ...{ NO_COLOR: "1", FORCE_COLOR: undefined, npm_lifecycle_event: undefined },
    ...own,
  }
  const child = spawn(process.execPath, [...node, MAIN, ...args], { stdio: ["ignore", "pipe", "pipe"], env })
  running.add(child)
  let out = ""
  let err = ""
  child.stdout!.on("data", (data) => (out += data))
  child.stderr!.on("data", (data) => (err += data))
  const exit = new Promise<Exit>((resolve) =>
    child.on("close", (code, signal) => {
      running.delete(child)
      resolve({ code, signal, out, err })
    }),
  )
  return { child, out: () => out, exit }
}

function file(name: string, content: string): string {
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}

async function started(server: Run): Promise<string> {
  for (let i = 0; i < 2400; i++) {
    const ready = server
      .out()
      .split("\n")
      .find((line) => line.includes('"msg":"ready"'))
    if (ready) return (JSON.parse(ready) as { url: string }).url
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new Error(`not ready: ${server.out()}`)
}

describe("what the user can put right is one line and exit code 2", () => {
  const fake = ["serve", "--engine", "fake", "--port", "0"]
  it.each<[string, string[], RegExp]>([
    ["an unknown command", ["srve"], /unknown command 'srve'/],
    ["an unknown option", ["serve", "--prot", "1"], /unknown option '--prot'/],
    ["a bad port", ["serve", "--port", "99999"], /whole number between 0 and 65535/],
    ["an unknown policy", ["serve", "--policy", "best"], /Allowed choices are slos-serve/],
    [
      "a missing config",
      [...fake, "--config", join(folder, "none.yaml")],
      /cannot read the config .*none\.yaml/,
    ],
    [
      "a bad config",
      [...fake, "--config", file("bad.yaml", "classes:\n  a: {ttft: 5}\n")],
      /bad\.yaml:2:7: classes\.a\.ttft/,
    ],
    [
      "a config that is a list",
      [...fake, "--config", file("list.yaml", "- a\n")],
      /list\.yaml: the file must be a map of fields/,
    ],
    ["an empty config", [...fake, "--config", file("empty.yaml", "")], /empty\.yaml: classes is missing/],
    [
      "a tenant without a key",
      [...fake, "--tenant", "alice"],
      /--tenant: there is no = after the name; expected name=key or name=key,weight/,
    ],
    [
      "a key of two tenants",
      [...fake, "--tenant", "a=k", "--config", file("tenants.yaml", "tenants:\n  b: {key: k}\n")],
      /tenants b and a have the same key/,
    ],
    ["optional keys without any", [...fake, "--no-require-key"], /--no-require-key: no tenant has a key/],
    [
      "a missing model",
      ["serve", "--port", "0", "--model", join(folder, "none.gguf")],
      /none\.gguf does not exist/,
    ],
    [
      "a corrupt model",
      ["serve", "--port", "0", "--model", file("bad.gguf", "GGUF\0\0\0")],
      /bad\.gguf .*GGUF/,
    ],
    ["a drafter", [...fake, "--speculate", "draft"], /--speculate .*must be lookup, off, or draft=<model>/],
    ["a log level", [...fake, "--log-level", "loud"], /--log-level loud/],
  ])("%s", async (_, args, message) => {
    const { code, err } = await run(...args).exit
    expect(err).toMatch(message)
    expect(
      err
        .trim()
        .split("\n")
        .filter((line) => !line.startsWith("(")),
    ).toHaveLength(1)
    expect(code).toBe(2)
  })

  it("a port in use", async () => {
    const taken = createServer().listen(0, "127.0.0.1")
    await new Promise((resolve) => taken.once("listening", resolve))
    const port = String((taken.address() as { port: number }).port)
    const { code, err } = await run("serve", "--engine", "fake", "--port", port).exit
    expect(err).toBe(
      `error: port ${port} on 127.0.0.1 is already in use; stop the other program or choose another with --port\n`,
    )
    expect(code).toBe(2)
    taken.close()
  })
})

describe("a running server", () => {
  it("finishes what runs on SIGTERM, then exits with 0", async () => {
    const server = run("serve", "--engine", "fake", "--port", "0")
    const url = await started(server)
    const response = await fetch(`${url}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ messages: [{ role: "user", content: "hi" }], stream: true, max_tokens: 100 }),
    })
    server.child.kill("SIGTERM")
    const text = await response.text()
    expect(text).toMatch(/"finish_reason":"(length|stop)"[\s\S]*data: \[DONE\]\n\n$/)
    expect((await server.exit).code).toBe(0)
  })

  it("stops at once on a second signal", async () => {
    const server = run("serve", "--engine", "fake", "--port", "0")
    const url = await started(server)
    const answer = fetch(`${url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "hi", max_tokens: 4000, ignore_eos: true }),
    }).catch(() => "cut off")
    const live = async () => {
      const status = (await (await fetch(`${url}/v1/slo/status`)).json()) as { requests: { running: number } }
      return status.requests.running
    }
    await expect.poll(live).toBe(1)
    server.child.kill("SIGINT")
    await expect.poll(server.out).toContain("SIGINT: finishing 1 requests")
    server.child.kill("SIGINT")
    expect((await server.exit).signal).toBe("SIGINT")
    expect(await answer).toBe("cut off")
  })

  // The library is on a thread of its own then, and waits for the event loop to take its log lines.
  it("stops at once while the model is being loaded", async () => {
    const model = await tinyModel(TINY_PRESETS["tiny-bench"], folder, "loading")
    // Where nothing is known of its step times they are measured before it is ready: time enough for the signal.
    const own = { SLOS_SERVE_CACHE: join(folder, "of none") }
    const server = runWith({ own }, "serve", "--model", model, "--port", "0")
    server.child.stdout!.on("data", (data) => {
      if (String(data).includes('"msg":"loading ')) server.child.kill("SIGTERM")
    })
    expect((await server.exit).signal).toBe("SIGTERM")
  })

  it("says that a random model is one", async () => {
    const server = run(
      "serve",
      "--engine",
      "fake",
      "--port",
      "0",
      "--config",
      "examples/slo-classes.yaml",
      "--served-name",
      "ours",
    )
    const url = await started(server)
    const models = (await (await fetch(`${url}/v1/models`)).json()) as {
      data: { id: string; random_weights?: boolean }[]
    }
    expect(models.data[0]).toMatchObject({ id: "ours", random_weights: true })
    expect(models.data.map((m) => m.id)).toContain("code-completion")
    server.child.kill("SIGTERM")
    expect((await server.exit).code).toBe(0)
  })

  const complete = (url: string, fields: object, headers = {}) =>
    fetch(`${url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: JSON.stringify({ prompt: "hi", ignore_eos: true, ...fields }),
    })

  it("has the tenants of its command line and its config, each by its key, and one for the rest", async () => {
    const config = file("two.yaml", "tenants:\n  bob: {keys: [sk-b1, sk-b2], weight: 2.5}\n")
    const server = run(
      ...["serve", "--engine", "fake", "--port", "0", "--config", config],
      ...["--tenant", "alice=sk-a", "--tenant", "default=,0.5", "--no-require-key", "--share-prefixes"],
    )
    const url = await started(server)
    const prompt = "a prompt of several blocks of KV. ".repeat(3)
    const keys = ["sk-a", "sk-b2", "sk-c", null]
    const answers = []
    for (const key of keys) {
      const headers = key === null ? {} : { authorization: `Bearer ${key}` }
      const more = { "x-llm-d-inference-fairness-id": "bob" }
      answers.push(await complete(url, { prompt, max_tokens: 3 }, { ...headers, ...more }))
    }
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 401, 200])
    expect(await answers[1]!.json()).toMatchObject({
      usage: { prompt_tokens_details: { cached_tokens: 96 } },
    })
    const { tenants } = (await (await fetch(`${url}/v1/slo/status`)).json()) as { tenants: object[] }
    expect(tenants).toMatchObject([
      { name: "default", weight: 0.5, output_tokens: 3 },
      { name: "bob", weight: 2.5, output_tokens: 3, prompt_tokens: 6 },
      { name: "alice", weight: 1, output_tokens: 3, prompt_tokens: 102 },
    ])
    server.child.kill("SIGTERM")
    expect((await server.exit).code).toBe(0)
  })

  it("outlives SIGHUP, SIGUSR2 and a reader of its log", async () => {
    const server = run("serve", "--engine", "fake", "--port", "0")
    const url = await started(server)
    for (const signal of ["SIGHUP", "SIGUSR2", "SIGHUP"] as const) {
      server.child.kill(signal)
      await expect.poll(server.out).toMatch(`${signal} is ignored`)
    }
    server.child.stdout!.destroy()
    server.child.stderr!.destroy()
    server.child.kill("SIGHUP")
    expect((await complete(url, { max_tokens: 5 })).status).toBe(200)
    server.child.kill("SIGHUP")
    expect((await complete(url, { max_tokens: 5 })).status).toBe(200)
    server.child.kill("SIGTERM")
    expect((await server.exit).code).toBe(0)
  })

  it("whose step hangs refuses requests with 503, and dies of SIGTERM", async () => {
    const model = await tinyModel(TINY_PRESETS["tiny-bench"], folder, "hanging")
    const server = runWith(
      { node: ["--import", new URL("../../bench/robust/hang.ts", import.meta.url).href] },
      ...["serve", "--model", model, "--port", "0", "--no-profile"],
      ...["--step-timeout", "0.5", "--drain-timeout", "60"],
    )
    const url = await started(server)
    // Before the request, whose steps might else all have ended by then.
    server.child.kill("SIGUSR2")
    expect((await complete(url, { max_tokens: 4000 })).status).toBe(503)
    expect((await fetch(`${url}/ready`)).status).toBe(503)
    server.child.kill("SIGTERM")
    const { signal, out } = await server.exit
    expect(signal).toBe("SIGTERM")
    expect(out).toMatch(/the engine's step has not ended: stopping without it/)
  })
})
