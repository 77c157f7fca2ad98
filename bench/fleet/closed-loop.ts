/** Clients that ask again as soon as they are answered (evaluation runs, batch jobs, load testers), through our gateway and through a
 * balancer: answers a second, and how many kept their SLO. Simulated engines whose step times are hidden from the gateway; virtual time.
 * A row of JSON a run.
 *
 *     node bench/fleet/closed-loop.ts --streams 24,100 --step-ms 50,200 --ttft-ms 60000 --tpot-ms 2000
 *
 * Steps take what `--step-ms` says whatever they compute, or as long as on a preset's GPU (`--hardware opt-6.7b-a100`), or as a profile says
 * (`--profile`, of llama-servers with 16 slots whose steps take 128 tokens). `--best-effort 0.5`: half of what is asked has no objective.
 * `--chats 2`: so many requests a second come besides, at random times, with the objectives; the streams then have none. */
import { readFileSync } from "node:fs"
import { parseArgs } from "node:util"
import type { CostModel } from "../../src/core/cost.ts"
import { ENGINE_RULES, type EngineRules, type EngineRulesName } from "../../src/fleet/engine-rules.ts"
import { readClasses } from "../../src/load/classes.ts"
import { HARDWARE, type Hardware } from "../../src/sim/presets.ts"
import { RUN_DEFAULTS, type RunSpec } from "../../src/study/spec.ts"
import { Clients } from "./virtual/clients.ts"
import { hardwareOf, steadySteps } from "./virtual/hardware.ts"
import { type FrontName, play } from "./virtual/play.ts"

const { values } = parseArgs({
  options: {
    streams: { type: "string", default: "24,100" },
    "step-ms": { type: "string", default: "50" },
    hardware: { type: "string" },
    profile: { type: "string" },
    tokens: { type: "string", default: "20" },
    prompt: { type: "string", default: "12" },
    "best-effort": { type: "string", default: "0" },
    chats: { type: "string", default: "0" },
    "ttft-ms": { type: "string", default: "1000" },
    "tpot-ms": { type: "string", default: "100" },
    engine: { type: "string", default: "vllm" },
    fronts: { type: "string", default: "gateway,least connections" },
    replicas: { type: "string", default: "2" },
    seconds: { type: "string", default: "120" },
    seeds: { type: "string", default: "1" },
  },
})
const numbers = (text: string) => text.split(",").map(Number)

interface Engine {
  rules: EngineRules
  /** Tokens of a step: what it really takes, told or not. */
  budget: number
  hardware: Hardware
}

const costOf = (profile: string) => (JSON.parse(readFileSync(profile, "utf8")) as { model: CostModel }).model

function engineOf(stepMs: number): Engine {
  const rules: EngineRules = ENGINE_RULES[values.engine as EngineRulesName]
  if (values.hardware !== undefined) {
    const hardware = HARDWARE[values.hardware]!
    return { rules: { ...rules, kvTokens: hardware.kvTokens }, budget: rules.tokenBudget, hardware }
  }
  const { profile } = values
  const [budget, maxSequences] = profile === undefined ? [rules.tokenBudget, rules.maxSequences] : [128, 16]
  const cost = profile === undefined ? steadySteps(stepMs) : costOf(profile)
  const hardware = hardwareOf(
    cost,
    { maxBatchTokens: budget, maxSequences },
    profile ?? "steps of one length",
  )
  return { rules: { ...rules, maxSequences, kvTokens: hardware.kvTokens }, budget, hardware }
}

const POLICIES: Record<string, RunSpec["policy"]> = {
  "vllm-priority": "vllm-priority",
  sglang: "vllm-prefill-first",
}
const replicas = Number(values.replicas)
const durationS = Number(values.seconds)
const asked = {
  ...{ promptTokens: Number(values.prompt), outputTokens: Number(values.tokens), durationS },
  ...{ ttftMs: Number(values["ttft-ms"]), tpotMs: Number(values["tpot-ms"]) },
  ...{ bestEffort: Number(values["best-effort"]), chats: Number(values.chats) },
}
const times = values.hardware ?? values.profile ?? null
for (const stepMs of times === null ? numbers(values["step-ms"]) : [0])
  for (const streams of numbers(values.streams))
    for (const seed of numbers(values.seeds))
      for (const front of values.fronts.split(",") as FrontName[]) {
        const { rules, budget, hardware } = engineOf(stepMs)
        const spec: RunSpec = {
          ...RUN_DEFAULTS,
          ...{ scenario: "chatbot", policy: POLICIES[values.engine] ?? "vllm", hardware, replicas, seed },
          ...{ options: { tokenBudget: budget }, ratePerSec: 1, durationS, classes: readClasses(undefined) },
          maxSequenceTokens: hardware.contextTokens - 1,
        }
        const clients = new Clients({ ...asked, streams, seed })
        play(spec, front, rules, undefined, undefined, clients)
        const { answers, chats } = clients
        const perSec = (count: number) => Math.round((100 * count) / durationS) / 100
        console.log(
          JSON.stringify({
            ...{ engine: values.engine, times: times ?? `${stepMs} ms a step`, replicas, streams },
            ...{ ...asked, seed, front },
            ...{ answersPerSec: perSec(answers.ended), promisable: answers.promisable, kept: answers.kept },
            ...(chats.total > 0 && { chatsAsked: chats.total, chatsKept: chats.kept }),
          }),
        )
      }
