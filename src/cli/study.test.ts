/** simulate and capacity as commands: bad input, tables, JSON, files. */
import { execFile, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { describe, expect, test } from "vitest"

const main = join(import.meta.dirname, "main.ts")
const folder = mkdtempSync(join(tmpdir(), "study-cli-"))

async function cli(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const env = { ...process.env, NO_COLOR: "1", FORCE_COLOR: undefined }
  try {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [main, ...args], { env })
    return { code: 0, stdout, stderr }
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string }
    return { code, stdout, stderr }
  }
}

function file(name: string, text: string): string {
  const path = join(folder, name)
  writeFileSync(path, text)
  return path
}

const badTrace = file(
  "bad.csv",
  "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9,10,5\nx,y,z\n",
)
const longPlan = file(
  "long.jsonl",
  [
    '{"plan":1,"scenario":"x","seed":1,"ratePerSec":1,"durationMs":1000,"scale":1,"arrivals":"x","sources":{}}',
    '{"atMs":0,"app":"chat","rounds":[{"class":"chat","promptTokens":10,"outputTokens":5}]}',
    '{"atMs":5,"app":"chat","rounds":[{"class":"chat","promptTokens":9000,"outputTokens":5}]}',
  ].join("\n"),
)
const notProfile = file("profile.json", '{"model":{}}')
const profileOf = (piece: unknown) =>
  JSON.stringify({ model: { pieces: [piece], residualSigma: 0, fastPassTokens: 1, unifiedKv: true } })
const badPiece = file("piece.json", profileOf({ tokens: "a" }))
const noPiece = file("nopiece.json", profileOf(null))

describe("bad input is one line and exit code 2", () => {
  test.each<[string[], RegExp]>([
    [["simulate", "--policy", "fifo"], /unknown policy "fifo"; known: .*slos-serve/],
    [["simulate", "--scenario", "tetris"], /unknown scenario "tetris"; known: chatbot/],
    [["simulate", "--rate", "-3"], /--rate/],
    [["simulate", "--rate", "0"], /--rate/],
    [["simulate", "--hardware", "abacus"], /unknown --hardware "abacus"; known: opt-6.7b/],
    [["simulate", "--scenario", "chatbot", "--trace", badTrace], /bad\.csv:3: .*(mend|delete)/],
    [
      ["simulate", "--scenario", "coder", "--trace", "chat=c.csv"],
      /coder cannot use a trace of chat; leave it out/,
    ],
    [
      ["simulate", "--classes", "coder=ttft:5x"],
      /--classes: nothing uses a class "coder"; known: chat, code, /,
    ],
    [
      ["simulate", "--plan", longPlan, "--trace", "c.csv"],
      /--trace c\.csv: the plan has its requests already/,
    ],
    [
      ["capacity", "--scenarios", "chatbot,tools", "--trace", "code=c.csv"],
      /--trace code=c\.csv: chatbot, tools cannot use a trace of code/,
    ],
    [["simulate", "--plan", longPlan], /long\.jsonl:3: .*9005 tokens, the context is 8192; shorten/],
    [["simulate", "--profile", notProfile], /profile\.json: no cost model in it \(model\.pieces\); make one/],
    [["simulate", "--profile", join(folder, "none.json")], /cannot read --profile .*ENOENT/],
    [["simulate", "--split", "1:1", "--replicas", "4"], /--split 1:1 is 2 replicas, --replicas is 4/],
    [["simulate", "--set", "margins=1"], /--set margins=1: expected name=value with a name of .*margin/],
    [["simulate", "--max-sequence-tokens", "9000"], /9000 is longer than the context of 8192/],
    [["simulate", "--arrivals", "daily"], /unknown --arrivals "daily"; known: poisson/],
    [["capacity", "--policies", "slos-serve,magic"], /unknown policy "magic"; known: slos-serve/],
    [["capacity", "--scenarios", "chatbot,"], /unknown scenario ""/],
    [["simulate", "--hardware", "toString"], /unknown --hardware "toString"/],
    [["simulate", "--set", "margin=-1"], /--set margin=-1: margin is a number from 0 to 10/],
    [["simulate", "--set", "margin=0.1=2"], /--set margin=0.1=2: margin is a number/],
    [["simulate", "--set", "maxSpeculation=2.5"], /maxSpeculation is a whole number from 1 to 64/],
    [["simulate", "--set", "admission=loose"], /admission is revocable or firm/],
    [["simulate", "--set", "toString=1"], /--set toString=1: expected name=value/],
    [["simulate", "--profile", badPiece], /piece\.json: no cost model in it \(model.pieces.0.tokens\); make/],
    [["simulate", "--profile", noPiece], /nopiece\.json: no cost model in it \(model.pieces.0\); make/],
    [["simulate", "--rate", "10000", "--duration", "1e6"], /--rate 10000 over 1000000 s is/],
    [["capacity", "--policies", "distserve", "--scenarios", "reasoning"], /distserve needs at least 2 GPUs/],
    [
      ["capacity", "--scenarios", "coder", "--report", join(badTrace, "out")],
      /cannot write .*ENOTDIR.*choose/,
    ],
    [["capacity", "--scenarios", "coder", "--out", folder], /cannot write .*EISDIR.*choose another file/],
    [["help", "simlate"], /unknown command 'simlate'; known: serve, vllm, endpoint-picker, planner, profile/],
  ])("%j", async (args, message) => {
    const { code, stderr, stdout } = await cli(...args)
    expect(stderr).toMatch(message)
    expect(code).toBe(2)
    expect(stdout).toBe("")
    expect(stderr).not.toMatch(/\n\s+at /)
  })
})

test("a reader that has seen enough ends the command, without a word", async () => {
  for (const args of [["--help"], ["simulate", "--requests", "400", "--json"]]) {
    const child = spawn(process.execPath, [main, ...args], { stdio: ["ignore", "pipe", "pipe"] })
    let stderr = ""
    child.stderr.on("data", (text) => (stderr += text))
    child.stdout.destroy()
    const [code] = await once(child, "close")
    expect([code, stderr]).toEqual([0, ""])
  }
})

test("capacity's help says its defaults in the words of its options", async () => {
  expect((await cli("capacity", "--help")).stdout).toMatch(/off, on or both \(default: both\)/)
})

test("work goes on when its progress is no longer read", async () => {
  const args = [
    "--scenarios",
    "coder",
    "--policies",
    "vllm-v1",
    "--replicas",
    "1",
    "--requests",
    "60",
    "--json",
  ]
  const child = spawn(process.execPath, [main, "capacity", "--no-tune", "--seeds", "1", ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  })
  child.stderr.destroy()
  let stdout = ""
  child.stdout.on("data", (text) => (stdout += text))
  const [code] = await once(child, "close")
  expect(code).toBe(0)
  expect(JSON.parse(stdout).rows).toHaveLength(2)
})

describe("simulate", () => {
  test("prints tables, and the same JSON for the same seed", async () => {
    const args = ["simulate", "--scenario", "tools", "--rate", "1", "--requests", "40", "--replicas", "2"]
    const { stdout, code } = await cli(...args, "--svg", join(folder, "run.svg"))
    expect(code).toBe(0)
    expect(stdout).toMatch(/all requests[\s\S]*size decile[\s\S]*TTFT[\s\S]*KV in use/)
    expect(stdout).toMatch(
      /TTFT of requests that missed[\s\S]*longest pause between tokens[\s\S]*work spent on/,
    )
    expect(readFileSync(join(folder, "run.svg"), "utf8")).toMatch(/^<svg/)
    const [a, b] = await Promise.all([cli(...args, "--json"), cli(...args, "--json")])
    expect(a.stdout).toBe(b.stdout)
    const { report } = JSON.parse(a.stdout)
    expect(report.attainment.total).toBe(36)
    expect(report.longestPauseMs.count).toBe(36)
    expect(report.missedTtftMs?.count ?? 0).toBe(36 - report.attainment.attained)
  })

  test("plays a saved plan", async () => {
    const plan = file("plan.jsonl", readFileSync(longPlan, "utf8").replace("9000", "900"))
    const { stdout } = await cli("simulate", "--plan", plan, "--lead-in", "0", "--json")
    const { spec, report } = JSON.parse(stdout)
    expect(report.attainment).toEqual({ attained: 2, total: 2 })
    expect(spec).toMatchObject({ scenario: "x", ratePerSec: 1, durationS: 1 })
    expect((await cli("simulate", "--plan", plan)).stdout).toMatch(/^x at 1\/s for 1 s \(plan .*, seed 1\)/)
  })

  test("of no requests there is no attainment", async () => {
    const { stdout } = await cli("simulate", "--requests", "1")
    expect(stdout).toMatch(/attainment .* – .* 100%/)
    expect(stdout).not.toMatch(/ 0% /)
  })
})

test("capacity measures chats that share system prompts", async () => {
  const args = [
    "--scenarios",
    "shared",
    "--policies",
    "vllm-v1",
    "--speculate",
    "off",
    "--no-tune",
    "--seeds",
    "1",
  ]
  const { stdout, code } = await cli("capacity", ...args, "--replicas", "1", "--requests", "60", "--json")
  expect(code).toBe(0)
  const [row] = JSON.parse(stdout).rows
  expect(row).toMatchObject({ scenario: "shared", system: "vllm-v1" })
  expect(row.ratePerSec).toBeGreaterThan(0.1)
})

test("capacity prints its table, and JSON with --out", async () => {
  const out = join(folder, "out.json")
  const args = ["capacity", "--scenarios", "coder", "--policies", "slos-serve,vllm-v1", "--replicas", "1"]
  const { stdout, stderr, code } = await cli(
    ...args,
    "--requests",
    "60",
    "--seeds",
    "1",
    "--speculate",
    "off",
    "--out",
    out,
  )
  expect(stderr).toMatch(/capacity 2\/2/)
  expect(code).toBe(0)
  const { rows } = JSON.parse(readFileSync(out, "utf8")) as { rows: { system: string; ratePerSec: number }[] }
  expect(rows.map(({ system }) => system)).toEqual(["slos-serve", "vllm-v1"])
  for (const { ratePerSec } of rows) expect(stdout).toContain(ratePerSec.toPrecision(3))
})
