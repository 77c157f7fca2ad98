/** `npm pack`, installed into an empty project on the versions of Node that are promised: every command and thread must
 * begin from built files, and what other programs import must have its types. */
import { execFileSync, spawn, spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { afterAll, beforeAll, describe, expect, test } from "vitest"

const ROOT = resolve(import.meta.dirname, "../..")
const folder = mkdtempSync(join(tmpdir(), "slos-pack-"))
const CHAT = { messages: [{ role: "user", content: "hi" }], max_tokens: 8 }
const SCHEMA = {
  ...{ type: "object", additionalProperties: false, required: ["ok"] },
  properties: { ok: { type: "boolean" } },
}
const PROGRAM = `import { Replica, simulate, POLICY_NAMES, type Effect, type ReplicaConfig, type RequestSpec } from "slos-serve"
const cost = { pieces: [{ step: 5000, tokens: 150, sequences: 150 }], residualSigma: 0.05, fastPassTokens: 1, unifiedKv: true }
const limits = { kvTokens: 4096, blockTokens: 16, maxSequences: 8, maxBatchTokens: 256, contextTokens: 1024, minChunkTokens: 1, unifiedKv: true }
const config: ReplicaConfig = { limits, cost, policy: "slos-serve", apps: 1 }
const effects: Effect["type"][] = []
const endUs: number = simulate({ config, requests: [], onEffect: ({ type }) => effects.push(type) })
const replica: Replica = new Replica(config)
const shape: keyof RequestSpec = "promptTokens"
console.log(JSON.stringify({ endUs, policies: POLICY_NAMES.length, effects, waiting: replica.snapshot(0).waiting, shape }))
`

let tarball = ""
beforeAll(() => {
  const out = execFileSync("npm", ["pack", "--json", "--pack-destination", folder], {
    cwd: ROOT,
    encoding: "utf8",
  })
  const [packed] = JSON.parse(out.slice(out.indexOf("["))) as {
    filename: string
    files: { path: string }[]
  }[]
  tarball = join(folder, packed!.filename)
  const others = packed!.files.filter(({ path }) =>
    /\.test\.|testing|\.suite\.|(?<!\.d)\.ts$|\/tests\//.test(path),
  )
  expect(others).toEqual([])
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

describe.each([22, 24])("on Node %i", (version) => {
  const project = join(folder, `node-${version}`)
  const env = {
    ...process.env,
    ...{ PATH: `${project}/node_modules/.bin:${process.env.PATH}`, NO_COLOR: "1", FORCE_COLOR: undefined },
    ...{ SLOS_SERVE_CACHE: join(folder, "cache"), npm_config_yes: "false", NODE_OPTIONS: "" },
  }

  const inProject = (command: string, ...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(command, args, { cwd: project, env, encoding: "utf8" })
    return { status, stdout, stderr }
  }
  const cli = (...args: string[]) => inProject("npx", "slos-serve", ...args)

  beforeAll(() => {
    mkdirSync(project, { recursive: true })
    writeFileSync(
      join(project, "package.json"),
      JSON.stringify({ name: "empty", private: true, type: "module" }),
    )
    const install = ["install", "--no-audit", "--no-fund", "--foreground-scripts"]
    const { status, stderr } = inProject(
      "npm",
      ...install,
      tarball,
      `node@${version}`,
      "typescript",
      "@types/node",
    )
    expect(stderr).not.toMatch(/EBADENGINE.*slos-serve/)
    expect(status, stderr).toBe(0)
  })

  /** Serves while `use` runs, and ends as a service manager ends it. */
  async function served(args: readonly string[], use: (url: string) => Promise<void>): Promise<void> {
    const child = spawn("npx", ["slos-serve", "serve", "--port", "0", ...args], {
      cwd: project,
      env,
      detached: true,
    })
    try {
      let out = ""
      child.stderr.on("data", (data) => (out += data))
      const url = await new Promise<string>((found, failed) => {
        child.stdout.on("data", (data) => {
          out += data
          const ready = /"url":"(http[^"]+)"/.exec(out)
          if (ready !== null) found(ready[1]!)
        })
        child.on("exit", () => failed(new Error(out)))
      })
      await use(url)
      // Closed when the server itself has ended: npx's shell does not wait for it.
      const ended = new Promise((end) => child.on("close", end))
      child.kill("SIGTERM")
      await ended
      expect(out).toContain('"msg":"stopped"')
    } finally {
      try {
        process.kill(-child.pid!, "SIGKILL")
      } catch {
        // All of the group has ended.
      }
    }
  }

  const post = async (url: string, body: object) => {
    const headers = { "content-type": "application/json" }
    const answer = await fetch(`${url}/v1/chat/completions`, {
      method: "POST",
      headers,
      body: JSON.stringify(body),
    })
    expect(answer.status, await answer.clone().text()).toBe(200)
    return (await answer.json()) as {
      choices: { message: { content: string } }[]
      usage: { completion_tokens: number }
    }
  }

  test("that very Node runs it, and helps", () => {
    expect(inProject("node", "--version").stdout).toMatch(new RegExp(`^v${version}\\.`))
    const { status, stdout } = cli("--help")
    expect(status).toBe(0)
    expect(stdout).toContain("serve a model over the OpenAI API")
  })

  test("a server without a model, with its page and its forecasts' thread", async () => {
    const often = ["--engine", "fake", "--scale-every", "1"]
    await served(often, async (url) => {
      expect((await post(url, CHAT)).usage.completion_tokens).toBe(8)
      expect(await (await fetch(url)).text()).toContain("<html")
      await expect
        .poll(async () => (await fetch(`${url}/metrics`)).text(), { timeout: 60_000 })
        .toMatch(/slos_serve_replicas_wanted \d/)
    })
  })

  test("workers of their own", async () => {
    await served(["--engine", "fake", "--replicas", "2"], async (url) => {
      expect((await post(url, CHAT)).usage.completion_tokens).toBe(8)
    })
  })

  test("a model on llama.cpp, with the threads of grammars and of long prompts", async () => {
    await served(["--model", "tiny", "--offline", "--no-profile", "--threads", "1"], async (url) => {
      const form = { type: "json_schema", json_schema: { name: "it", strict: true, schema: SCHEMA } }
      const { choices } = await post(url, { ...CHAT, max_tokens: 40, response_format: form })
      expect(JSON.parse(choices[0]!.message.content)).toEqual({ ok: expect.any(Boolean) })
      const long = [{ role: "user", content: "word ".repeat(1500) }]
      expect((await post(url, { ...CHAT, messages: long })).usage.completion_tokens).toBeGreaterThan(0)
    })
  })

  test("a simulated fleet, and a study on threads", () => {
    const simulated = cli("simulate", "--scenario", "chatbot", "--requests", "100", "--json")
    expect(simulated.status, simulated.stderr).toBe(0)
    expect(JSON.parse(simulated.stdout).report.attainment.total).toBeGreaterThan(0)
    const few = ["--policies", "vllm-v1", "--speculate", "off", "--quick", "--no-tune", "--requests", "50"]
    const study = cli("capacity", "--scenarios", "chatbot", ...few, "--workers", "1", "--json")
    expect(study.status, study.stderr).toBe(0)
    expect(JSON.parse(study.stdout).rows).toHaveLength(1)
  })

  test("charts are an optional part that says how to add it", () => {
    const { status, stderr } = cli(
      "simulate",
      "--scenario",
      "chatbot",
      "--requests",
      "100",
      "--svg",
      "it.svg",
    )
    expect(status).toBe(2)
    expect(stderr).toContain("npm install vega@6 vega-lite@6")
  })

  test("a typed import, checked down to its own declarations", () => {
    writeFileSync(join(project, "program.ts"), PROGRAM)
    const compilerOptions = {
      ...{ strict: true, module: "nodenext", target: "es2024", types: ["node"], skipLibCheck: false },
      ...{ exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true },
    }
    writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["program.ts"] }))
    const { status, stdout } = inProject("npx", "tsc", "-p", ".")
    expect(status, stdout).toBe(0)
    const ran = inProject("node", "program.js")
    expect(JSON.parse(ran.stdout || ran.stderr)).toMatchObject({
      endUs: expect.any(Number),
      waiting: 0,
      effects: [],
    })
  })

  test("nothing of the checkout came along", () => {
    const installed = join(project, "node_modules/slos-serve")
    const { version: its } = JSON.parse(readFileSync(join(installed, "package.json"), "utf8")) as {
      version: string
    }
    expect(cli("--version").stdout.trim()).toBe(its)
    expect(() => readFileSync(join(installed, "src/cli/main.ts"))).toThrow()
    expect(() => readFileSync(join(project, "node_modules/vega/package.json"))).toThrow()
  })
})
