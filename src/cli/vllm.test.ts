/** `slos-serve vllm` as a user runs it, on a program that looks like vLLM from outside: start, answers, deaths, the end of all it started. */
import { type ChildProcess, spawn } from "node:child_process"
import { chmodSync, existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { type AddressInfo, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import OpenAI from "openai"
import { afterEach, describe, expect, test } from "vitest"
import type { FakeVllm, Told } from "../vllm/fake-vllm-testing.ts"

const MAIN = new URL("./main.ts", import.meta.url).pathname
const FAKE = new URL("../vllm/fake-vllm-testing.ts", import.meta.url).pathname
const folder = mkdtempSync(join(tmpdir(), "slos-serve-test-"))
const PROGRAM = join(folder, "vllm")
writeFileSync(PROGRAM, `#!/bin/sh\nexec "${process.execPath}" "${FAKE}" "$@"\n`)
chmodSync(PROGRAM, 0o755)

const running = new Set<ChildProcess>()
afterEach(async () => {
  for (const child of running) child.kill("SIGKILL")
  await expect.poll(() => running.size).toBe(0)
})

let runs = 0
interface Run {
  child: ChildProcess
  out: () => string
  err: () => string
  /** Where its vLLM says of itself. */
  file: string
  told: () => Told
  exit: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
}

function run(args: readonly string[], fake: Partial<FakeVllm> = {}, options: readonly string[] = []): Run {
  const told = join(folder, `${++runs}.json`)
  const env = {
    ...{
      ...process.env,
      NO_COLOR: "1",
      FORCE_COLOR: undefined,
      FAKE_VLLM: JSON.stringify({ told, ...fake }),
    },
    ...KEYS,
    SLOS_SERVE_CACHE: join(folder, "cache"),
  }
  const own = ["vllm", "--port", "0", "--vllm", PROGRAM, ...options]
  const child = spawn(process.execPath, [MAIN, ...own, "--", ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env,
  })
  running.add(child)
  let out = ""
  let err = ""
  child.stdout!.on("data", (data) => (out += data))
  child.stderr!.on("data", (data) => (err += data))
  const exit = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) =>
    child.on("close", (code, signal) => {
      running.delete(child)
      resolve({ code, signal })
    }),
  )
  return {
    child,
    out: () => out,
    err: () => err,
    exit,
    file: told,
    told: () => JSON.parse(readFileSync(told, "utf8")) as Told,
  }
}

async function started(server: Run): Promise<{ url: string; openai: OpenAI }> {
  const over = () => server.out().includes('"msg":"ready"') || !running.has(server.child)
  await expect.poll(over, { timeout: 60_000 }).toBe(true)
  expect(server.out() + server.err()).toMatch('"msg":"ready"')
  const ready = server
    .out()
    .split("\n")
    .find((line) => line.includes('"msg":"ready"'))!
  const { url } = JSON.parse(ready) as { url: string }
  return { url, openai: new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 }) }
}

function lives(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"))
  } catch {
    return false
  }
}
/** Of the planner, as the log names it. */
const plannerOf = (pid: number) =>
  Number(
    readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8")
      .trim()
      .split(" ")
      .find((child) => {
        try {
          return readFileSync(`/proc/${child}/cmdline`, "utf8").includes("\0planner\0")
        } catch {
          return false
        }
      }),
  )

const KEYS = { KEY_A: `sk-${"a".repeat(40)}`, KEY_B: `sk-${"b".repeat(40)}`, KEY_C: `sk-${"c".repeat(40)}` }
const hi = [{ role: "user" as const, content: "hi" }]

describe("what cannot be meant is one line and exit code 2", () => {
  test.each<[string, string[], RegExp, string[]?]>([
    ["nothing to serve", [], /say what vLLM is to serve, after --/],
    [
      "its own scheduler",
      ["m", "--scheduler-cls", "x"],
      /--scheduler-cls cannot be given here: slos-serve vllm sets it/,
    ],
    ["its own port", ["m", "--port=1"], /--port cannot be given here/],
    ["a program that is not there", ["m"], /--vllm none: none is no program/, ["--vllm", "none"]],
    ["a policy option", ["m"], /--set margins=1: expected name=value/, ["--set", "margins=1"]],
    [
      "a log that cannot be written",
      ["m"],
      /cannot write \/dev\/null\/x\.log.*--vllm-log/,
      ["--vllm-log", "/dev/null/x.log"],
    ],
  ])("%s", async (_, args, message, options = []) => {
    const server = run(args, {}, options)
    expect((await server.exit).code).toBe(2)
    expect(server.err()).toMatch(message)
    expect(server.err().trim().split("\n")).toHaveLength(1)
  })

  test("arguments of vLLM before the --", async () => {
    const server = run([], {}, ["--tensor-parallel-size", "2"])
    expect((await server.exit).code).toBe(2)
    expect(server.err()).toMatch("unknown option '--tensor-parallel-size'")
  })
})

test("a vLLM that ends while it loads: why, in one line, and it is not started again", async () => {
  const server = run(["m"], { fails: "ValueError: no such model" })
  expect((await server.exit).code).toBe(2)
  expect(server.out()).not.toMatch(/Traceback/)
  expect(server.err()).toMatch(
    /^error: vLLM ended with exit code 1 before it was ready: no such model \(all that it said is in .*\.log\)\n$/,
  )
  expect(lives(server.told().engine)).toBe(false)
})

test("one that does not say why: its last lines", async () => {
  const server = run(["m"], { fails: "Killed" })
  expect((await server.exit).code).toBe(2)
  expect(server.out()).toMatch(/Killed/)
  expect(server.err()).toMatch(
    /^error: vLLM ended with exit code 1 before it was ready; above are its last lines, all of them are in .*\.log\n$/,
  )
})

test("a port of the planner that is taken", async () => {
  const other = createServer()
  await new Promise<void>((done) => other.listen(0, "127.0.0.1", done))
  const { port } = other.address() as AddressInfo
  const server = run(["m"], {}, ["--metrics-port", String(port)])
  expect((await server.exit).code).toBe(2)
  expect(server.err()).toMatch(
    new RegExp(`^error: port ${port} on 127\\.0\\.0\\.1 is already in use; .*--metrics-port\n$`),
  )
  other.close()
})

describe("a running vLLM", () => {
  test("has our scheduler, our middleware and the user's arguments; answers through the gateway; ends with it", async () => {
    const config = join(folder, "classes.yaml")
    writeFileSync(
      config,
      "classes:\n  fast: {ttft: 3s, tpot: 500ms}\n  slow: {tier: best_effort}\ntenants:\n  bob: {key: sk-b, weight: 2}\n",
    )
    const server = run(["my/model", "--seed", "5"], { loadMs: 300 }, [
      "--config",
      config,
      "--tenant",
      "alice=sk-a,3",
    ])
    const { url } = await started(server)
    const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "sk-a", maxRetries: 0 })
    const answer = await openai.chat.completions.create({ model: "m-1", messages: hi })
    expect(answer.choices[0]!.message.content).toBe("one two three four five six seven eight")
    expect(answer).toMatchObject({ metrics: { slo: { class: "fast", ttft_ms: 3000 } } })
    const { args, pid, engine, environment } = server.told()
    expect(args.slice(0, 4)).toEqual(["serve", "my/model", "--seed", "5"])
    expect(args.join(" ")).toMatch(
      /--scheduler-cls slos_serve_vllm\.Scheduler --additional-config \{"slos_serve":\{"socket":"[^"]*planner\.sock","start":false\}\}/,
    )
    expect(environment).toMatchObject({
      SLOS_SERVE_CLASSES: "fast,slow",
      PYTHONPATH: expect.stringMatching(/plugins\/vllm$/),
    })
    expect(readFileSync(join(folder, "cache/logs/vllm-0.log"), "utf8")).toMatch(
      /^\$ [^\n]*vllm serve my\/model[^\n]*\n.*Loading weights/,
    )
    expect((await (await fetch(`${url}/`)).text()).toLowerCase()).toMatch("<html")
    expect(await (await fetch(`${url}/metrics`)).text()).toMatch(/slos_serve_replica_up\{[^}]*\} 1/)
    const planner = plannerOf(server.child.pid!)
    expect(lives(planner)).toBe(true)
    server.child.kill("SIGTERM")
    expect(await server.exit).toEqual({ code: 0, signal: null })
    await expect.poll(() => [pid, engine, planner].map(lives)).toEqual([false, false, false])
  })

  test("several processes of the gateway before it are one; all end together", async () => {
    const server = run(["m"], { loadMs: 300 }, ["--gateways", "2"])
    const { url, openai } = await started(server)
    const ready = server
      .out()
      .split("\n")
      .find((line) => line.includes('"pids"'))!
    const { pids, policy } = JSON.parse(ready) as { pids: number[]; policy: string }
    expect([new Set(pids).size, policy]).toEqual([2, "slos-serve"])
    for (let i = 0; i < 4; i++) {
      const answer = await openai.chat.completions.create({ model: "m-1", messages: hi })
      expect(answer.choices[0]!.message.content).toContain("eight")
    }
    expect(await (await fetch(`${url}/metrics`)).text()).toMatch(
      /vllm:request_success_total\{[^}]*"stop"\} 4/,
    )
    const { pid, engine } = server.told()
    const planner = plannerOf(server.child.pid!)
    expect([pid, engine, planner, ...pids].map(lives)).toEqual(Array(5).fill(true))
    server.child.kill("SIGTERM")
    expect(await server.exit).toEqual({ code: 0, signal: null })
    await expect.poll(() => [pid, engine, planner, ...pids].map(lives)).toEqual(Array(5).fill(false))
  })

  test("streams that run are finished on SIGINT, with a vLLM that takes no notice of being asked to end", async () => {
    const server = run(["m"], { wordMs: 150, stubborn: true })
    const { openai } = await started(server)
    const stream = await openai.chat.completions.create({ model: "m-1", messages: hi, stream: true })
    let text = ""
    let isAsked = false
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? ""
      // A busy machine may get several words at once.
      if (text !== "" && !isAsked) isAsked = server.child.kill("SIGINT")
    }
    expect(text).toBe("one two three four five six seven eight")
    expect((await server.exit).code).toBe(0)
    await expect.poll(() => lives(server.told().pid)).toBe(false)
  })

  test("SIGHUP changes keys and limits at once; the stream, vLLM and the planner go on", async () => {
    const config = join(folder, "hup.yaml")
    const keys = (...names: string[]) =>
      `keys:\n${names.map((n) => `  ${n}: {key: "env:KEY_${n}"}\n`).join("")}`
    writeFileSync(config, keys("A", "B"))
    const server = run(["m"], { wordMs: 250 }, ["--config", config])
    const { url } = await started(server)
    const clientOf = (key: string) => new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 })
    const ask = { model: "m-1", messages: hi }
    const stream = await clientOf(KEYS.KEY_B).chat.completions.create({ ...ask, stream: true })
    const planner = plannerOf(server.child.pid!)
    const { pid, engine } = server.told()
    writeFileSync(config, `${keys("A", "C")}limits: {max_queue: 7}\n`)
    let text = ""
    let isAsked = false
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? ""
      if (text !== "" && !isAsked) isAsked = server.child.kill("SIGHUP")
    }
    expect(text).toBe("one two three four five six seven eight")
    await expect.poll(server.out).toMatch(/SIGHUP: .* changed: limits\.max_queue, .*keys/)
    await expect(clientOf(KEYS.KEY_B).chat.completions.create(ask)).rejects.toMatchObject({ status: 401 })
    expect((await clientOf(KEYS.KEY_C).chat.completions.create(ask)).choices).toHaveLength(1)
    expect(await (await fetch(`${url}/metrics`)).text()).toMatch(/^slos_serve_queue_places 7$/m)
    expect([pid, engine, planner].map(lives)).toEqual([true, true, true])
    expect([server.told().pid, plannerOf(server.child.pid!)]).toEqual([pid, planner])
    server.child.kill("SIGTERM")
    expect((await server.exit).code).toBe(0)
  })

  test("what dies is started again, vLLM with its engine, and the planner", async () => {
    const server = run(["m"], {})
    const { openai } = await started(server)
    const first = server.told()
    const planner = plannerOf(server.child.pid!)
    process.kill(planner, "SIGKILL")
    process.kill(first.pid, "SIGKILL")
    await expect.poll(server.out, { timeout: 60_000 }).toMatch(/vLLM is back/)
    await expect.poll(server.out, { timeout: 60_000 }).toMatch(/the planner is back/)
    expect(server.out()).toMatch(/vLLM died of SIGKILL; it is started again now/)
    expect(lives(first.engine)).toBe(false)
    expect(server.told().pid).not.toBe(first.pid)
    const ask = () =>
      openai.chat.completions.create({ model: "m-1", messages: hi }).then(
        () => true,
        () => false,
      )
    await expect.poll(ask).toBe(true)
    expect(plannerOf(server.child.pid!)).not.toBe(planner)
  })

  test("nothing is left when it is killed, or stopped while vLLM loads", async () => {
    const server = run(["m"])
    await started(server)
    const { pid, engine } = server.told()
    const planner = plannerOf(server.child.pid!)
    server.child.kill("SIGKILL")
    await expect.poll(() => [pid, engine, planner].map(lives)).toEqual([false, false, false])
    const loading = run(["m"], { loadMs: 60_000 })
    // It is there before anything is in it.
    const isTold = () => existsSync(loading.file) && readFileSync(loading.file, "utf8") !== ""
    await expect.poll(isTold).toBe(true)
    const left = loading.told()
    loading.child.kill("SIGINT")
    expect((await loading.exit).signal).toBe("SIGINT")
    await expect.poll(() => [left.pid, left.engine].map(lives)).toEqual([false, false])
  })
})
