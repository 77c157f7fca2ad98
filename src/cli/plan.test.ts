/** `slos-serve plan` as a user runs it: lines in, lines out, one line for what is wrong. */
import { spawnSync } from "node:child_process"
import { resolve } from "node:path"
import { expect, test } from "vitest"

const MAIN = resolve(import.meta.dirname, "main.ts")

const run = (args: string[], input: string) => {
  const { FORCE_COLOR: _, CI: __, ...env } = process.env
  const options = { input, encoding: "utf8", timeout: 100_000, env: { ...env, NO_COLOR: "1" } } as const
  return spawnSync(process.execPath, [MAIN, "plan", ...args], options)
}

const INSTANCE = JSON.stringify({
  ...{ id: "one", now: 0, tpots: [0.1], hw: [7e-5, 0, 0.025], hw_terms: 3, block_size: 16, mem_free: 99 },
  spec: { alpha: 0.7, max_sd: 4 },
  requests: [
    {
      id: 0,
      new: true,
      tier: 0,
      ddl: 0.2,
      remaining: 500,
      prompt: 500,
      computed: 0,
      max_tokens: 9,
      profit: 2,
      mem: 32,
    },
    {
      id: 1,
      new: true,
      tier: 0,
      ddl: 0.1,
      remaining: 5000,
      prompt: 5000,
      computed: 0,
      max_tokens: 9,
      profit: 9,
      mem: 9,
    },
  ],
})

test.each(["slos-serve", "slos-serve-paper"])("one answer per line, by %s", (policy) => {
  const { stdout, status } = run(["--policy", policy, "--margin", "0"], `${INSTANCE}\n\n${INSTANCE}\n`)
  const answers = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>)
  expect([status, answers.length]).toEqual([0, 2])
  expect(Object.keys(answers[0]!)).toEqual(["id", "feasible", "accepted", "profit", "us", "batches"])
  expect(answers[1]).toMatchObject({ id: "one", feasible: true, accepted: [0], profit: 2 })
})

const changed = (change: object) => JSON.stringify({ ...JSON.parse(INSTANCE), ...change })

test("blank lines, line ends of Windows and a byte order mark are no fault", () => {
  const { stdout, status } = run([], `\uFEFF${INSTANCE}\r\n\r\n${INSTANCE}\r\n`)
  expect([status, stdout.trim().split("\n").length]).toEqual([0, 2])
})

test.each([
  [[], "\n\n", /^error: stdin is empty.*\n$/],
  [[], changed({ hw: [0, 0, 0] }), /^error: stdin, line 1: hw: a batch of one token must take.*\n$/],
  [[], changed({ hw: [-1, 0, 1] }), /^error: stdin, line 1: hw\.0: .*\n$/],
  [[], changed({ spec: { alpha: 0.7, max_sd: 1e9 } }), /^error: stdin, line 1: spec\.max_sd: .*\n$/],
  [[], INSTANCE.replaceAll('"max_tokens":9', '"max_tokens":1e15'), /line 1: requests\.0\.max_tokens: .*\n$/],
  [
    [],
    INSTANCE.replace('"remaining":500', '"remaining":501'),
    /remaining: must not be above prompt, which is 500/,
  ],
  [[], `\n${changed({ hw: [0, 0, 1e-6] })}`, /^error: stdin, line 2: no end after 100000 batches; .*\n$/],
  [[], "{", /^error: stdin, line 1: not JSON.*\n$/],
  [["--file", "/does/not/exist"], "", /^error: cannot read .*check --file\n$/],
  [["--policy", "best"], "", /Allowed choices are slos-serve, slos-serve-paper/],
  [["--margin", "much"], "", /between 0 and 2/],
  [[], "", /^error: stdin is empty.*\n$/],
])("one line and exit code 2 for %j", (args, input, message) => {
  const { stderr, status } = run(args, input)
  expect(status).toBe(2)
  expect(stderr).toMatch(message)
})

test("--help has examples", () =>
  expect(run(["--help"], "").stdout).toMatch(/Examples:\n {2}\$ slos-serve plan/))
