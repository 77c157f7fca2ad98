/** A short chaos on real processes: workers of a real server are killed and stopped under way, and no client notices. The long
 * one is bench/fleet/chaos.ts. Nothing here depends on how long anything takes. */
import { mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, test } from "vitest"
import { type Fault, planFaults } from "../bench/fleet/chaos/faults.ts"
import { findingsOf } from "../bench/fleet/chaos/findings.ts"
import { judge, play } from "../bench/fleet/chaos/play.ts"
import { workersStage } from "../bench/fleet/chaos/stage.ts"
import { ASKED, recorded } from "../bench/fleet/chaos/transcripts.ts"
import { freePort } from "../src/free-port.ts"

const [CLIENTS, PROMPTS] = [8, 8]
const FAULTS: readonly Fault[] = (["kill", "pause", "stop", "kill"] as const).map((kind, i) => ({
  ...{ kind, atMs: 1000 + 3000 * i, place: (i % 2) / 2, length: 0 },
}))

test("workers are killed and stopped under load: no token is lost or repeated, no stream hangs or fails", {
  timeout: 180_000,
}, async () => {
  const logFolder = mkdtempSync(join(tmpdir(), "chaos-"))
  const port = await freePort()
  const stage = await workersStage({ engine: "fake", model: "", replicas: 2, port, logFolder })
  try {
    const transcripts = await recorded(stage.gateways[0]!.url, ASKED.slice(0, PROMPTS))
    const options = { seed: 1, clients: CLIENTS, lengthMs: 12_000, transcripts }
    const played = await play(stage, FAULTS, options)
    const texts = new Map(transcripts.map(({ prompt, text }) => [prompt, text]))
    const found = findingsOf(played, texts)
    expect(found.differing).toEqual([])
    expect(found.errors).toEqual({})
    expect(found.verdicts).toEqual({ same: found.streams, differs: 0, hung: 0, gateway: 0, error: 0 })
    // Each fault met streams that were under way, and each client ended some.
    for (const { underWay, kind } of found.recovery) expect(underWay, kind).toBeGreaterThan(0)
    expect(new Set(played.streams.map(({ client }) => client)).size).toBe(CLIENTS)
    const status = (await (await fetch(`${stage.gateways[0]!.url}/v1/slo/status`)).json()) as {
      replicas: { restarts: number }[]
    }
    expect(status.replicas.reduce((sum, { restarts }) => sum + restarts, 0)).toBeGreaterThan(0)
  } finally {
    await stage.close()
  }
})

test("what a client saw is judged by its transcript", () => {
  const transcript = { prompt: "p", tokens: 4, text: "abcd" }
  const seen = {
    ...{ startMs: 0, endMs: 9000, end: "ok", message: "", text: "abcd", tokens: 4, tokenMs: [1, 2, 3, 4] },
    ...{ retryMs: null, kept: null, tier: null },
  }
  const verdict = (change: Partial<typeof seen>, died: number[] = []) =>
    judge({ ...seen, ...change }, transcript, died)
  expect(verdict({})).toBe("same")
  expect(verdict({ text: "abd", tokens: 3 })).toBe("differs")
  expect(verdict({ text: "abbcd" })).toBe("differs")
  expect(verdict({ tokens: 5 })).toBe("differs")
  expect(verdict({ text: "ab", end: "hung" })).toBe("hung")
  expect(verdict({ text: "ab", end: "cut" })).toBe("error")
  expect(verdict({ text: "ab", end: "cut" }, [8500])).toBe("gateway")
  expect(verdict({ text: "ab", end: "cut" }, [20_000])).toBe("error")
  expect(verdict({ text: "ac", end: "cut" }, [8500])).toBe("differs")
  expect(verdict({ text: "ab", end: "no_replica" })).toBe("error")
})

test("faults are the same for the same seed, and all kinds come about equally often", () => {
  const options = { lengthMs: 600_000, gapMs: 5000, kinds: ["kill", "stop", "cut"] as const }
  const plan = planFaults(3, options)
  expect(planFaults(3, options)).toEqual(plan)
  expect(planFaults(4, options)).not.toEqual(plan)
  const counts = options.kinds.map((kind) => plan.filter((fault) => fault.kind === kind).length)
  expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1)
  expect(plan.length).toBeGreaterThan(100)
})
