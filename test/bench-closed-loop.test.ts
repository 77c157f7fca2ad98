/** Clients that ask again at once, through our gateway and through a balancer, before simulated engines. */
import { describe, expect, test } from "vitest"
import { Clients, type ClientsOptions } from "../bench/fleet/virtual/clients.ts"
import { hardwareOf, steadySteps } from "../bench/fleet/virtual/hardware.ts"
import { type FrontName, play } from "../bench/fleet/virtual/play.ts"
import { ENGINE_RULES, type EngineRulesName } from "../src/fleet/engine-rules.ts"
import { readClasses } from "../src/load/classes.ts"
import { RUN_DEFAULTS, type RunSpec } from "../src/study/spec.ts"

interface Engine {
  engine: EngineRulesName
  stepMs: number
}

/** Before two engines whose steps take as long whatever they compute. */
function played(front: FrontName, { engine, stepMs }: Engine, options: Partial<ClientsOptions>): Clients {
  const rules = { ...ENGINE_RULES[engine], kvTokens: 1e7 }
  const { tokenBudget, maxSequences } = rules
  const limits = { maxBatchTokens: tokenBudget, maxSequences }
  const hardware = hardwareOf(steadySteps(stepMs), limits, "steps of one length")
  const spec: RunSpec = {
    ...RUN_DEFAULTS,
    ...{ scenario: "chatbot", policy: "vllm", hardware, replicas: 2, seed: 1, ratePerSec: 1, durationS: 60 },
    ...{ options: { tokenBudget }, classes: readClasses(undefined), maxSequenceTokens: 8191 },
  }
  const clients = new Clients({
    ...{ streams: 24, promptTokens: 12, outputTokens: 20, ttftMs: 60_000, tpotMs: 2000 },
    ...{ bestEffort: 0, chats: 0, durationS: 60, seed: 1 },
    ...options,
  })
  play(spec, front, rules, undefined, undefined, clients)
  return clients
}

describe("clients get as many answers as without a gateway", () => {
  const slow: Engine = { engine: "vllm", stepMs: 200 }
  const cases: [string, Engine, Partial<ClientsOptions>][] = [
    ["steps of 200 ms, all promised", slow, {}],
    ["objectives that no engine keeps", slow, { ttftMs: 1000, tpotMs: 100 }],
    ["half of it without objectives beside such", slow, { ttftMs: 1000, tpotMs: 100, bestEffort: 0.5 }],
    ["four seats each, steps of 200 ms", { engine: "llama-server", stepMs: 200 }, {}],
  ]
  test.each(cases)("%s", (_, engine, options) => {
    const direct = played("least connections", engine, options)
    const { answers } = played("gateway", engine, options)
    expect(direct.answers.ended).toBeGreaterThan(100)
    expect(answers.ended).toBeGreaterThan(0.95 * direct.answers.ended)
    expect(answers.kept).toBeGreaterThanOrEqual(0.95 * direct.answers.kept)
  })
})

test("requests without an objective that are asked again and again leave promises their time", () => {
  const seats: Engine = { engine: "llama-server", stepMs: 50 }
  const beside = { streams: 64, chats: 4, ttftMs: 1000, tpotMs: 100 }
  const { chats, answers } = played("gateway", seats, beside)
  expect(chats.total).toBeGreaterThan(200)
  expect(chats.kept).toBeGreaterThan(0.99 * chats.total)
  const direct = played("least connections", seats, beside)
  expect(direct.chats.kept).toBe(0)
  expect(answers.ended).toBeGreaterThan(0.85 * direct.answers.ended)
})
