/** replay and model as commands: what the user can put right is one line and exit code 2. */
import { spawnSync } from "node:child_process"
import { mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { expect, test } from "vitest"

const MAIN = resolve(import.meta.dirname, "main.ts")

function run(...args: string[]) {
  const { FORCE_COLOR: _, CI: __, ...env } = process.env
  const options = { encoding: "utf8", timeout: 100_000, env: { ...env, NO_COLOR: "1" } } as const
  return spawnSync(process.execPath, [MAIN, ...args], options)
}

test.each<[string[], RegExp]>([
  [["replay", "--dry-run", "--rate", "0"], /--rate.*argument '0' is invalid. It must be a number from/],
  [["replay", "--dry-run", "--duration", "-1"], /--duration.*argument '-1' is invalid/],
  [["replay", "--dry-run", "--max-concurrency", "1.5"], /--max-concurrency.* It must be a whole number/],
  [["replay", "--dry-run", "--zero-load-ms", "-5"], /--zero-load-ms.* It must be a number from 0/],
  [["replay", "--dry-run", "--max-sequence-tokens", "1.5"], /It must be a whole number between 2/],
  [["replay", "--dry-run", "--scenario", "toString"], /^error: unknown scenario "toString"; known: chatbot/],
  [["replay", "--dry-run", "--scenario", "nope", "--trace", "chat=t.csv"], /^error: unknown scenario "nope"/],
  [
    ["replay", "--dry-run", "--trace", "tools=t.csv"],
    /^error: --trace tools=t.csv: mixed cannot use a trace of tools/,
  ],
  [
    ["replay", "--dry-run", "--scenario", "reasoning", "--trace", "t.csv"],
    /reasoning cannot use a trace of reasoning/,
  ],
  [
    ["replay", "--dry-run", "--scenario", "tools", "--trace", "chat=t.csv"],
    /only the times of a trace of chat; use --arr/,
  ],
  [
    ["replay", "--dry-run", "--trace", "code=a.csv", "--trace", "code=b.csv"],
    /code has a trace already, a.csv/,
  ],
  [
    ["replay", "--dry-run", "--classes", "chatt=ttft:500"],
    /^error: --classes: nothing uses a class "chatt"; known: chat, /,
  ],
  [["replay", "--dry-run", "--arrivals", "daily"], /Allowed choices are poisson, gamma/],
  [["replay", "--target-kind", "mine"], /Allowed choices are slos-serve, llama-server/],
  [["replay", "--url", "localhost"], /^error: --url localhost is not a URL such as/],
  [["replay", "--api-key", "a\nb"], /^error: --api-key must be printable ASCII/],
  [["replay", "--out", "/dev/null/x"], /^error: cannot write \/dev\/null\/x \((ENOTDIR|EEXIST)\)/],
  [["model", "lst"], /^error: unknown command 'model lst'; known: list, fetch, path, tiny/],
  [["model", "tiny", "--preset", "toString"], /Allowed choices are tiny, /],
  [["model", "tiny", "--layers", "0"], /--layers.* It must be a whole number between 1/],
])("%j", (args, message) => {
  const { status, stdout, stderr } = run(...args)
  expect(stderr).toMatch(message)
  expect([status, stdout]).toEqual([2, ""])
  expect(stderr).not.toMatch(/\n\s+at /)
})

test("a saved plan brings its own classes, and takes no trace", () => {
  const folder = mkdtempSync(join(tmpdir(), "replay-cli-"))
  const plan = join(folder, "plan.jsonl")
  const saved = run("replay", "--dry-run", "--scenario", "shared", "--duration", "5").stdout
  expect(saved).toContain('"app":"shared"')
  writeFileSync(plan, saved.replaceAll('"class":"chat"', '"class":"mine"'))
  const classes = ["--classes", "mine=ttft:500,tpot:100"]
  expect(run("replay", "--dry-run", "--plan", plan, ...classes).status).toBe(0)
  expect(run("simulate", "--plan", plan, ...classes).stdout).toMatch(/stage mine first token/)
  const { status, stderr } = run("replay", "--dry-run", "--plan", plan, "--trace", "chat=t.csv")
  expect([status, stderr]).toEqual([2, expect.stringContaining("the plan has its requests already")])
})

test("a dry run prints its plan, the same for the same seed", () => {
  const args = ["replay", "--dry-run", "--scenario", "tools", "--duration", "5", "--seed"]
  const [first, again, other] = ["7", "7", "8"].map((seed) => run(...args, seed).stdout)
  expect(first).toMatch(/^\{"plan":1,"scenario":"tools"/)
  expect(again).toBe(first)
  expect(other).not.toBe(first)
})
