/** advise as a command: from a scenario, from a recording, from a server; bad input. */
import { execFile } from "node:child_process"
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { describe, expect, it } from "vitest"
import { testServer } from "../http/testing.ts"
import { linesOf } from "../scale/recording-file.ts"
import { poisson, SETUP } from "../scale/testing.ts"

const main = join(import.meta.dirname, "main.ts")
const folder = mkdtempSync(join(tmpdir(), "advise-cli-"))

async function cli(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const env = { ...process.env, NO_COLOR: "1", FORCE_COLOR: undefined }
  try {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [main, "advise", ...args], { env })
    return { code: 0, stdout, stderr }
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string }
    return { code, stdout, stderr }
  }
}

function recording(ratePerSec: number, seconds: number): string {
  const arrivals = poisson(() => ratePerSec, 0, seconds)
  const recorded = { recording: { arrivals, sinceUs: 0, nowUs: seconds * 1e6 }, setup: SETUP, replicas: 1 }
  const path = join(folder, `${ratePerSec}-${seconds}.jsonl`)
  writeFileSync(path, [...linesOf(recorded)].join(""))
  return path
}

describe("advise", () => {
  it("says how many replicas a recording takes, as a table, as JSON and as a picture", async () => {
    const [out, svg] = [join(folder, "advice.json"), join(folder, "advice.svg")]
    const { code, stdout, stderr } = await cli("--recording", recording(2, 90), "--out", out, "--svg", svg)
    expect([code, stderr]).toEqual([0, ""])
    const advice = JSON.parse(readFileSync(out, "utf8"))
    expect(advice).toMatchObject({ target: 0.9, replicas: 1, enough: true, reached: true })
    expect(advice.best).toBeGreaterThan(1)
    expect(stdout).toContain(`Recommended: ${advice.best} replicas (1 serves now)`)
    expect(stdout).toMatch(/│ +1 │ +\d+\.\d% │.*serves now/)
    expect(readFileSync(svg, "utf8")).toMatch(/^<svg/)
  })

  it("says when there is too little to say", async () => {
    const { stdout } = await cli("--recording", recording(0.08, 60))
    expect(stdout).toMatch(/Too few requests to say: \d with SLOs, 10 are needed for 90.0%/)
  })

  it("plans for a scenario before there is a server", async () => {
    const { stdout, code } = await cli("--scenario", "coder", "--rate", "6", "--requests", "60", "--json")
    expect(code).toBe(0)
    const { best, forecasts, replicas } = JSON.parse(stdout)
    expect(replicas).toBe(0)
    expect(forecasts.map((one: { replicas: number }) => one.replicas)).toContain(best)
  })

  it("asks a server", async () => {
    const server = await testServer({ listen: true })
    try {
      const body = JSON.stringify({ prompt: "x", max_tokens: 4 })
      const headers = { "content-type": "application/json" }
      await fetch(`${server.url}/v1/completions`, { method: "POST", headers, body })
      const { stdout, code } = await cli("--url", `${server.url}/`)
      expect([code, stdout]).toEqual([0, expect.stringContaining("Too few requests to say")])
    } finally {
      await server.close()
    }
  })
})

it.each<[string[], RegExp]>([
  [[], /needs one of --url, --recording and --scenario/],
  [["--scenario", "chatbot", "--url", "http://x"], /needs one of/],
  [["--scenario", "chess"], /unknown scenario "chess"/],
  [["--recording", join(folder, "none")], /cannot read --recording .* \(ENOENT\)/],
  [["--recording", main], /main\.ts:1: not JSON; take the recording anew/],
  [
    ["--url", "http://127.0.0.1:65533"],
    /127\.0\.0\.1:65533\/v1\/slo\/arrivals: no answer \(ECONNREFUSED\); check --url/,
  ],
  [["--url", "nonsense"], /no answer .*check --url/],
  [["--recording", recording(0.0001, 10)], /nothing was recorded yet/],
  [["--scenario", "chatbot", "--target", "2"], /--target/],
])("bad input %j is one line and exit code 2", async (args, message) => {
  const { code, stderr, stdout } = await cli(...args)
  expect([code, stdout]).toEqual([2, ""])
  expect(stderr).toMatch(message)
  expect(stderr).not.toMatch(/ at .*\.ts/)
})
