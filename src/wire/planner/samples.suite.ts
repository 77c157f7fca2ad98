/** One of each message, as both ends of every version so far have sent it. */
import { columnOf } from "./columns.ts"
import type { ToPlanner, ToPlugin } from "./messages.ts"

const HELLO = { type: "hello" as const, protocol: "slos-serve-planner", version: 2 }
const nothing = { ran: null, landed: [], arrived: [] }

export const TO_PLANNER: Record<string, ToPlanner> = {
  hello: HELLO,
  engine: {
    type: "engine",
    name: "vllm-0",
    limits: {
      ...{ kvTokens: 65_504, blockTokens: 16, maxSequences: 64, maxBatchTokens: 2048 },
      ...{ contextTokens: 4096, minChunkTokens: 16 },
    },
    ...{
      depth: 2,
      prefixCaching: true,
      maxDrafts: 5,
      tellsThinking: false,
      model: "SmolLM2-135M",
      device: "cpu",
      dtype: "float32",
    },
    ...{ tensorParallel: 1, pipelineParallel: 1, dataRank: 0, captureSizes: [1, 2, 4, 8], eager: false },
    graphMode: "FULL_AND_PIECEWISE",
    ...{ vllmVersion: "0.32.0", pluginVersion: "0.1.0" },
  },
  arrival: {
    ...{ type: "step", seq: 1, nowUs: 1_000_000, ...nothing },
    arrived: [
      {
        ...{ id: 1, ageUs: 1250.5, promptTokens: 40, maxOutputTokens: 100 },
        prefix: columnOf([9_007_199_254_740_991, 17]),
        slo: { slo_class: "chat", slo_ttft_ms: 500, slo_tpot_ms: 50.5 },
        ...{ lora: "sql", waitsForGrammar: true },
      },
    ],
  },
  named: {
    ...{ type: "step", seq: 1, nowUs: 1_000_000, ...nothing },
    arrived: [
      {
        ...{ id: 2, name: "chatcmpl-4f1c-0123abcd", ageUs: 800, promptTokens: 40, maxOutputTokens: 100 },
        ...{ slo: {}, lora: null, waitsForGrammar: false },
      },
    ],
  },
  engineOfStages: {
    type: "engine",
    name: "vllm-1",
    limits: {
      ...{ kvTokens: 65_504, blockTokens: 16, maxSequences: 64, maxBatchTokens: 2048 },
      ...{ maxAdapters: 2, contextTokens: 4096, minChunkTokens: 16 },
    },
    ...{
      depth: 3,
      tokenLag: 1,
      prefixCaching: true,
      maxDrafts: 0,
      tellsThinking: true,
      model: "m",
      device: "cpu",
    },
    ...{
      dtype: "float32",
      tensorParallel: 1,
      pipelineParallel: 2,
      dataRank: 1,
      captureSizes: [],
      eager: true,
    },
    ...{ graphMode: "NONE", vllmVersion: "0.33.0", pluginVersion: "0.1.0" },
  },
  ofAnAdapter: {
    ...{ type: "step", seq: 1, nowUs: 1_000_000, ...nothing },
    arrived: [
      {
        ...{ id: 3, ageUs: 800, promptTokens: 40, maxOutputTokens: 100, slo: {}, lora: "sql" },
        ...{ adapter: 2, allRows: true, waitsForGrammar: false },
      },
    ],
  },
  exact: {
    ...{ type: "step", seq: 2, nowUs: 1_020_000, ...nothing },
    ran: { batch: 1, atUs: 1_019_950, exact: true },
    ready: columnOf([1]),
    kvFreeTokens: 65_000,
  },
  onCore: { type: "step", seq: 2, nowUs: 1_020_000, ...nothing, core: 3 },
  renewing: { type: "step", seq: 2, nowUs: 1_020_000, ...nothing, renewsFromUs: 31_500 },
  other: {
    ...{ type: "step", seq: 3, nowUs: 1_040_000, ...nothing },
    ran: {
      ...{ batch: 0, atUs: 1_039_900, exact: false, ids: columnOf([1, 2]), positions: columnOf([40, 0]) },
      ...{ tokens: columnOf([1, 32]), drafts: columnOf([3, 0]) },
    },
    landed: [
      {
        ...{ step: 2, atUs: 1_039_000, durationUs: 19_050, ids: columnOf([1]), produced: columnOf([1]) },
      },
    ],
    cancelled: columnOf([3]),
    lost: columnOf([2]),
  },
  landed: {
    ...{ type: "step", seq: 4, nowUs: 1_060_000, ran: null, arrived: [] },
    landed: [
      {
        ...{
          step: 3,
          atUs: 1_059_000,
          durationUs: 19_100,
          ids: columnOf([1, 2]),
          produced: columnOf([3, 0]),
        },
        ...{ computed: columnOf([43, 32]), drafted: columnOf([3, 0]), answeringFrom: columnOf([2, -1]) },
        ...{ stopped: columnOf([1]), preempted: columnOf([2]) },
        ...{ filledIds: columnOf([1]), filledHashes: columnOf([4_503_599_627_370_497]) },
      },
    ],
  },
  asUsual: {
    ...{ type: "step", seq: 4, nowUs: 1_060_000, ran: null, arrived: [] },
    landed: [{ step: 3, atUs: 1_059_000, durationUs: 19_100, stopped: columnOf([2]) }],
  },
  begun: {
    ...{ type: "step", seq: 1, nowUs: 2_000_000, ran: null, landed: [] },
    arrived: [
      {
        ...{ id: 5, ageUs: 900_000, promptTokens: 40, maxOutputTokens: 100, slo: {}, lora: null },
        waitsForGrammar: false,
        begun: {
          ...{ output: 4, computed: 43, even: false, thoughtTokens: 2 },
          ...{ agoUs: columnOf([500_000, 300_000, 100_000]), tokens: columnOf([1, 1, 2]) },
        },
      },
    ],
  },
}

export const TO_PLUGIN: Record<string, ToPlugin> = {
  hello: HELLO,
  ready: { type: "ready", policy: "slos-serve", version: "0.1.0", maxLagUs: 5000 },
  refused: { type: "refused", message: "no KV: 8 tokens do not hold one block of 16" },
  plan: {
    ...{ type: "plan", seq: 3, batch: 2, predictedUs: 18_000, ids: columnOf([1, 9_007_199_254_740_991]) },
    ...{ positions: columnOf([41, 16]), tokens: columnOf([1, 64]), drafts: columnOf([2, 0]) },
    evict: columnOf([4]),
  },
  nothing: {
    ...{ type: "plan", seq: 4, batch: 0, predictedUs: 0, ids: columnOf([]), positions: columnOf([]) },
    ...{ tokens: columnOf([]), wakeUs: 1_500_000 },
  },
  goodbye: { type: "goodbye", message: "it is being shut down" },
}
