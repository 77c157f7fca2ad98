/** Our gateway before engines that own their batching, against balancers that count requests: the share of requests that keep
 * every SLO, by rate. Simulated engines, virtual time, step times hidden from the gateway; its twin, what it holds back and its
 * dispatcher are the production code. A row of JSON a run.
 *
 *     node bench/fleet/gateway-at-rate.ts --scenario chatbot --engine vllm --replicas 2 --rates 4,6,8 --seeds 1,2,3 */
import { parseArgs } from "node:util"
import { ENGINE_RULES, type EngineRulesName } from "../../src/fleet/engine-rules.ts"
import { readClasses } from "../../src/load/classes.ts"
import { HARDWARE, SCENARIO_HARDWARE } from "../../src/sim/presets.ts"
import { RUN_DEFAULTS, type RunSpec } from "../../src/study/spec.ts"
import { FRONTS, type FrontName, play } from "./virtual/play.ts"

const { values } = parseArgs({
  options: {
    scenario: { type: "string", default: "chatbot" },
    hardware: { type: "string" },
    engine: { type: "string", default: "vllm" },
    budget: { type: "string" },
    replicas: { type: "string", default: "2" },
    rates: { type: "string", default: "4" },
    seconds: { type: "string", default: "100" },
    seeds: { type: "string", default: "1" },
    paces: { type: "string", default: "1" },
    fronts: { type: "string", default: FRONTS.join(",") },
  },
})
const { scenario } = values
const hardware = HARDWARE[values.hardware ?? SCENARIO_HARDWARE[scenario] ?? "opt-6.7b-a100"]!
const engine = values.engine as EngineRulesName
const policy = { "vllm-priority": "vllm-priority", sglang: "vllm-prefill-first" }[engine as string] ?? "vllm"
const replicas = Number(values.replicas)
const budget = values.budget === undefined ? ENGINE_RULES[engine].tokenBudget : Number(values.budget)

for (const rate of values.rates.split(",").map(Number))
  for (const seed of values.seeds.split(",").map(Number))
    for (const front of values.fronts.split(",") as FrontName[]) {
      const spec: RunSpec = {
        ...RUN_DEFAULTS,
        ...{ scenario, policy: policy as RunSpec["policy"], hardware, replicas, seed },
        ...{ options: { tokenBudget: budget }, paces: values.paces.split(",").map(Number) },
        ...{ ratePerSec: rate * replicas, durationS: Number(values.seconds), leadIn: 0.2 },
        classes: readClasses(undefined),
        maxSequenceTokens: hardware.contextTokens - 1,
      }
      const rules = { ...ENGINE_RULES[engine], tokenBudget: budget, kvTokens: hardware.kvTokens }
      const { kept, total, promised, promisedKept, why } = play(spec, front, rules)
      const percent = (share: number) => Math.round(10_000 * share) / 100
      console.log(
        JSON.stringify({
          ...{ scenario, engine, budget, replicas, rate, seed, front, kept: percent(kept / total), total },
          ...(promised > 0 && {
            promised: percent(promised / total),
            promisedKept: percent(promisedKept / promised),
          }),
          why,
        }),
      )
    }
