/** Our gateway before engines that own their batching, against balancers that count requests: the share of requests that keep
 * every SLO, by rate. Simulated engines, virtual time, step times hidden from the gateway; its twin, what it holds back and its
 * dispatcher are the production code. A row of JSON a run.
 *
 *     node bench/fleet/gateway-at-rate.ts --scenario chatbot --engine vllm --replicas 2 --rates 4,6,8 --seeds 1,2,3
 *
 * `--gateways 4`: as many processes of the gateway, which tell each other what they have; `--apart`: they do not, and see each other in
 * /metrics alone. `--peers 1`: as many gateways on machines of their own, which tell each other over a network that takes 1 ms one way.
 * Requests come to any of them.
 *
 * The engines of bench/fleet/rivals.ts, with its requests: llama-servers whose steps take 128 tokens, which they tell nobody. Step
 * times are those of a profile (slos-serve profile --threads 1 --out).
 *
 *     node bench/fleet/gateway-at-rate.ts --rivals smollm2-135m --profile bench/results/sim/smollm2-epyc-profile.json --rates 0.5,0.7 */
import { readFileSync } from "node:fs"
import { parseArgs } from "node:util"
import type { CostModel } from "../../src/core/cost.ts"
import { llamaServer } from "../../src/fleet/backends/llama-server.ts"
import { ENGINE_RULES, type EngineRules, type EngineRulesName } from "../../src/fleet/engine-rules.ts"
import type { TwinOptions } from "../../src/fleet/twin.ts"
import { readClasses } from "../../src/load/classes.ts"
import { HARDWARE, type Hardware, SCENARIO_HARDWARE } from "../../src/sim/presets.ts"
import { RUN_DEFAULTS, type RunSpec } from "../../src/study/spec.ts"
import { BURSTINESS, CONTEXT_TOKENS, LOADS } from "./rivals/loads.ts"
import { FRONTS, type FrontName, peersOver, play, SIBLINGS } from "./virtual/play.ts"

const { values } = parseArgs({
  options: {
    scenario: { type: "string", default: "chatbot" },
    hardware: { type: "string" },
    engine: { type: "string", default: "vllm" },
    budget: { type: "string" },
    replicas: { type: "string", default: "2" },
    rates: { type: "string", default: "4" },
    seconds: { type: "string" },
    "lead-in": { type: "string" },
    seeds: { type: "string", default: "1" },
    paces: { type: "string", default: "1" },
    fronts: { type: "string", default: FRONTS.join(",") },
    rivals: { type: "string" },
    profile: { type: "string" },
    believed: { type: "string" },
    gateways: { type: "string", default: "1" },
    apart: { type: "boolean", default: false },
    peers: { type: "string" },
  },
})

/** What is asked, of which engines, and what a gateway believes of these at first. */
interface Case {
  scenario: string
  engine: EngineRulesName
  hardware: Hardware
  /** Tokens of a step. */
  budget: number
  rules: EngineRules
  prior?: TwinOptions["prior"]
  spec: Partial<RunSpec>
}

function ofScenario(): Case {
  const { scenario } = values
  const hardware = HARDWARE[values.hardware ?? SCENARIO_HARDWARE[scenario] ?? "opt-6.7b-a100"]!
  const engine = values.engine as EngineRulesName
  const budget = values.budget === undefined ? ENGINE_RULES[engine].tokenBudget : Number(values.budget)
  const rules = { ...ENGINE_RULES[engine], tokenBudget: budget, kvTokens: hardware.kvTokens }
  return { scenario, engine, hardware, budget, rules, spec: {} }
}

/** bench/real/systems.ts has what these servers are told. */
function ofRivals(model: keyof typeof LOADS, profile: string): Case {
  const [slots, budget] = [16, 128]
  const { model: cost } = JSON.parse(readFileSync(profile, "utf8")) as { model: CostModel }
  const { scale, classes, durationSec } = LOADS[model]
  return {
    ...{ scenario: "all", engine: "llama-server", budget },
    hardware: {
      ...{ cost, gpus: 0, kvTokens: slots * CONTEXT_TOKENS, blockTokens: 1, maxBatchTokens: budget },
      ...{ maxSequences: slots, contextTokens: CONTEXT_TOKENS, minChunkTokens: 1 },
      ...{ unifiedKv: cost.unifiedKv, source: profile },
    },
    // It says how many slots it has, and nothing of its batch.
    rules: { ...ENGINE_RULES["llama-server"], maxSequences: slots },
    prior: llamaServer.prior,
    spec: {
      ...{ scale, burstiness: BURSTINESS, classes: readClasses(classes) },
      ...{ durationS: Number(values.seconds ?? durationSec), leadIn: Number(values["lead-in"] ?? 0) },
    },
  }
}

const { rivals, profile } = values
const { scenario, engine, hardware, budget, rules, prior, spec } =
  rivals === undefined ? ofScenario() : ofRivals(rivals as keyof typeof LOADS, profile!)
const policy = { "vllm-priority": "vllm-priority", sglang: "vllm-prefill-first" }[engine as string] ?? "vllm"
const replicas = Number(values.replicas)
const told = values.peers === undefined ? SIBLINGS : peersOver(1000 * Number(values.peers))
const believed = { ...rules, ...(values.believed !== undefined && { tokenBudget: Number(values.believed) }) }

for (const rate of values.rates.split(",").map(Number))
  for (const seed of values.seeds.split(",").map(Number))
    for (const front of values.fronts.split(",") as FrontName[]) {
      const run: RunSpec = {
        ...RUN_DEFAULTS,
        ...{ scenario, policy: policy as RunSpec["policy"], hardware, replicas, seed },
        ...{ options: { tokenBudget: budget }, paces: values.paces.split(",").map(Number) },
        ...{ ratePerSec: rate * replicas, durationS: Number(values.seconds ?? 100) },
        leadIn: Number(values["lead-in"] ?? 0.2),
        classes: readClasses(undefined),
        maxSequenceTokens: hardware.contextTokens - 1,
        ...spec,
      }
      const several = { gateways: Number(values.gateways), tell: values.apart ? null : told }
      const { kept, total, promised, promisedKept, why } = play(run, front, believed, prior, several)
      const percent = (share: number) => Math.round(10_000 * share) / 100
      console.log(
        JSON.stringify({
          ...{ scenario: rivals ?? scenario, engine, budget, replicas, rate, seed, front },
          ...(several.gateways > 1 && { gateways: several.gateways, ...(values.apart && { apart: true }) }),
          ...(several.gateways > 1 && values.peers !== undefined && { peersMs: Number(values.peers) }),
          ...(values.paces !== "1" && { paces: values.paces }),
          ...(values.seconds !== undefined && { seconds: Number(values.seconds) }),
          ...(values["lead-in"] !== undefined && { leadIn: Number(values["lead-in"]) }),
          ...(values.believed !== undefined && { believed: Number(values.believed) }),
          ...{ kept: percent(kept / total), total },
          ...(promised > 0 && {
            promised: percent(promised / total),
            promisedKept: percent(promisedKept / promised),
          }),
          why,
        }),
      )
    }
