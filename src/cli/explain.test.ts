/** explain as a command: one request, the last ones, JSON, keys; bad input. */
import { execFile } from "node:child_process"
import { join } from "node:path"
import { promisify } from "node:util"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { testServer } from "../http/testing.ts"

const main = join(import.meta.dirname, "main.ts")

async function cli(args: string[], env: Record<string, string> = {}) {
  const all = { ...process.env, NO_COLOR: "1", FORCE_COLOR: undefined, ...env }
  try {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [main, "explain", ...args], {
      env: all,
    })
    return { code: 0, stdout, stderr }
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string }
    return { code, stdout, stderr }
  }
}

let server: Awaited<ReturnType<typeof testServer>>
const asked: Record<string, string> = { kept: "", missed: "" }

beforeAll(async () => {
  server = await testServer({
    ...{
      listen: true,
      tenancy: { tenants: [{ name: "alice", weight: 1, keys: ["sk-a"] }], requireKey: false },
    },
    fake: {
      cost: {
        pieces: [{ step: 20_000, tokens: 5 }],
        residualSigma: 0.05,
        fastPassTokens: 1,
        unifiedKv: true,
      },
    },
  })
  const complete = async (slo: object, headers: Record<string, string> = {}) => {
    const payload = { prompt: "hi", max_tokens: 5, ignore_eos: true, slo }
    const answer = await server.app.inject({ method: "POST", url: "/v1/completions", headers, payload })
    return answer.json().id as string
  }
  asked.kept = await complete({ ttft_ms: 60_000, tpot_ms: 10_000 })
  asked.missed = await complete({ ttft_ms: 1, tpot_ms: 0.01 })
  asked.alices = await complete({ ttft_ms: 60_000 }, { authorization: "Bearer sk-a" })
})
afterAll(() => server.close())

describe("explain", () => {
  it("says where the time of a request went, why it missed, and what would have kept it", async () => {
    const { code, stdout, stderr } = await cli([asked.missed!, "--url", server.url])
    expect([code, stderr]).toEqual([0, ""])
    expect(stdout).toContain("class chat (slo, served as best_effort), tenant default")
    // What took most of it is the machine's to say.
    expect(stdout).toMatch(/missed: the first token was \d.* ms late by its TTFT: .+ took \d/)
    expect(stdout).toMatch(/would have been kept: a TTFT of \d+\.\d ms/)
    expect(stdout).toMatch(/│ own prefill +│ +\d+\.\d ms │ +\d+\.\d ms │/)
    expect(stdout).toMatch(/after \d+\.\d ms: turned down \(wont_fit, alone\)/)
    const sums = /│ sum +│ +(\S+) ms │ +(\S+) ms │/.exec(stdout)!
    const figures = /first token (\S+) ms .*, all (\S+) ms/.exec(stdout)!
    expect(sums.slice(1)).toEqual(figures.slice(1))
  })

  it("lists the last ones, or what was missed", async () => {
    const all = await cli(["--url", `${server.url}/`])
    const ids = [asked.missed!, asked.kept!].map((id) => id.replace("cmpl-", ""))
    for (const id of ids) expect(all.stdout).toContain(id)
    expect(all.stdout.indexOf(ids[0]!)).toBeLessThan(all.stdout.indexOf(ids[1]!))
    const { stdout } = await cli(["--missed", "--since", "3600", "--url", server.url])
    expect(stdout).toContain(ids[0]!)
    expect(stdout).not.toContain(ids[1]!)
  })

  it("prints JSON, and asks with a key", async () => {
    const { stdout } = await cli(["--json", "--key", "sk-a", "--url", server.url])
    expect(JSON.parse(stdout).requests).toMatchObject([{ tenant: "alice", attained: true }])
    const env = await cli([asked.alices!, "--json", "--url", server.url], { SLOS_SERVE_KEY: "sk-a" })
    expect(JSON.parse(env.stdout).answers).toMatchObject([{ tenant: "alice" }])
    const none = await cli(["--missed", "--key", "sk-a", "--url", server.url])
    expect(none.stdout).toBe("No request that it remembers missed an objective.\n")
  })

  it.each<[string[], RegExp]>([
    [["none"], /There is no request `none` among the last/],
    [["--key", "wrong"], /Incorrect API key/],
    [["--url", "http://127.0.0.1:65533"], /\/v1\/slo\/requests.*: no answer \(ECONNREFUSED\); check --url/],
    [["--limit", "0"], /--limit/],
    [["--since", "x"], /--since/],
  ])("bad input %j is one line and exit code 2", async (args, message) => {
    const { code, stderr, stdout } = await cli(["--url", server.url, ...args])
    expect([code, stdout]).toEqual([2, ""])
    expect(stderr).toMatch(message)
    expect(stderr).not.toMatch(/ at .*\.ts/)
  })
})
