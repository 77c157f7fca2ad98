/** One of each message, as both ends of every version so far have sent it. */
import { defaultSloClasses } from "../config/slo-classes.ts"
import { GREEDY } from "../engine/port.ts"
import type { ToGateway, ToReplica } from "./messages.ts"

const slo = {
  ttftUs: 500_000,
  ttftSlowdown: 0,
  tpotUs: 100_000,
  thinkingTpotUs: Infinity,
  maxGapUs: Infinity,
}
const job = {
  id: 7,
  generation: {
    prompt: {
      kind: "chat" as const,
      messages: [{ role: "user", content: "Grüße 👋", name: "ann" }],
      tools: null,
      variables: { enable_thinking: true },
    },
    tenant: "default",
    maxTokens: null,
    sampling: { ...GREEDY, seed: 4_294_967_295, logitBias: [[5, -100] as [number, number]] },
    parseSpecial: null,
    stops: ["\n\n"],
    stopTokens: [2],
    singleCall: false,
    jsonIsText: true,
    lastPromptTokens: 900,
    slo: {
      class: { ...defaultSloClasses().default, slo, aliases: [] },
      ...{ slo, tier: "slo" as const, priority: false, thinking: false },
    },
    session: "s1",
    reasoning: null,
    thinkingTokens: null,
  },
  ageUs: 1234.5,
  choices: [
    { index: 0, begun: null },
    { index: 1, begun: { steps: [{ tokens: [1, 2], agoUs: 20_000 }] } },
  ],
}

const start = { ttftUs: 500_000, queuedUs: 1_500, cachedTokens: 16 }

const stage = { stage: "prefill" as const, attained: true, worstLateUs: -Infinity, tokens: 1 }
const outcome = {
  ...{ app: 0, arrivalUs: 0, startedUs: 10, firstTokenUs: 2000, finishedUs: 9000, promptTokens: 12 },
  ...{ cachedTokens: 0, outputTokens: 2, maxGapUs: 7000, ttftUs: 500_000, preemptions: 0 },
  ...{ tier: "slo" as const, servedTier: "bestEffort" as const, attained: false, attainedEvery10: true },
  stages: [stage],
}
const usage = {
  ...{ promptTokens: 12, cachedTokens: 0, completionTokens: 2, reasoningTokens: 0 },
  ...{ drafts: 0, draftedTokens: 0, acceptedTokens: 0 },
}
const delta = {
  ...{ content: "He", reasoning: "", toolCalls: [{ index: 0, name: "f", arguments: "{}" }] },
  logprobs: [
    { bytes: Uint8Array.of(72, 101), logprob: -0.5, top: [{ bytes: Uint8Array.of(255), logprob: -3 }] },
  ],
  ...{ promptTokens: 12, completionTokens: 2 },
}
const snapshot = {
  ...{
    nowUs: 5,
    waiting: 1,
    running: 2,
    bestEffort: 0,
    kvUsedTokens: 64,
    kvCachedTokens: 16,
    kvEvictedTokens: 32,
  },
  ...{
    kvCapacityTokens: 1024,
    batchInFlight: true,
    prefillBacklogTokens: 9,
    prefillUsPerToken: 150.5,
    calibration: [1, 1.25, 1],
  },
  speculation: [{ acceptance: 0.5, hitRate: 1, length: 2, draftedTokens: 3, acceptedTokens: 2 }],
}
const account = {
  parts: [1000, 2000, 5000, 3000, 40_000, 0, 0, -500, 0, 700, 0],
  toFirst: [1000, 2000, 5000, 0, 9000, 0, 0, -700, 0, 200, 0],
  decisions: [
    { afterUs: 1000, what: "turnedDown" as const, reason: "wontFit" as const, bound: "memory" as const },
    { afterUs: 9000, what: "cameBack" as const },
  ],
  miss: {
    ...{ token: 7, stage: "answer" as const, objective: "tpot" as const, lateUs: 300, bound: null },
    parts: [0, 0, 0, 3000, 31_000, 0, 0, 200, 0, 500, 0],
    cause: "others" as const,
  },
  answeringUs: null,
  needs: { ttftUs: 0, tpotUs: 30_400, maxGapUs: 0 },
}
const model = {
  ...{ name: "tiny", fingerprint: "f", chatTemplate: null, bosText: "", eosText: "</s>", vocabSize: 2 },
  ...{ trainedContextTokens: 2048, parameters: 11_000_000, random: true },
}
const limits = {
  ...{ kvTokens: 1024, blockTokens: 16, maxSequences: 4, maxBatchTokens: 256, contextTokens: 1024 },
  ...{ minChunkTokens: 1, unifiedKv: false },
}

const planner = {
  limits,
  cost: {
    ...{ pieces: [{ step: 5000, tokens: 150.5 }], residualSigma: 0.05, fastPassTokens: 1, unifiedKv: false },
  },
  policy: "slos-serve",
  options: { maxBatchUs: 100_000, margin: "auto" },
}

export const TO_REPLICA: Record<string, ToReplica> = {
  hello: { type: "hello", protocol: "slos-serve", version: 3 },
  offer: { type: "offer", job, deadlineMs: 20 },
  submit: { type: "submit", job },
  submitPromptAlone: {
    type: "submit",
    job: {
      ...job,
      generation: {
        ...{ ...job.generation, maxTokens: 0, toContextEnd: false },
        sampling: { ...job.generation.sampling, promptLogprobs: 2, embedding: true },
      },
    },
  },
  submitWithBadWords: {
    type: "submit",
    job: { ...job, generation: { ...job.generation, badWords: ["darn", "two words"] } },
  },
  resume: {
    type: "submit",
    job: { ...job, choices: [{ index: 1, begun: { steps: [{ tokens: [1], agoUs: 20_000 }], start } }] },
  },
  cancel: { type: "cancel", id: 7 },
  withdraw: { type: "withdraw", id: 7 },
  close: { type: "close" },
}

export const TO_GATEWAY: Record<string, ToGateway> = {
  hello: { type: "hello", protocol: "slos-serve", version: 3 },
  info: {
    type: "info",
    info: { model, limits, longestTokenBytes: 4, vocabulary: [Uint8Array.of(97), new Uint8Array()], planner },
  },
  state: { type: "state", state: "ready", detail: "" },
  offered: { type: "offered", id: 7, takes: true, promptTokens: 12 },
  started: { type: "started", id: 7, choice: 0, start },
  tokens: { type: "tokens", id: 7, choice: 0, tokens: [72, 49_151], delta },
  ofPrompt: {
    ...{ type: "tokens", id: 7, choice: 0, tokens: [72] },
    delta: {
      ...delta,
      prompt: [{ bytes: Uint8Array.of(), control: "<s>", logprob: 0, top: [] }],
      embedding: Uint8Array.of(0, 0, 128, 63),
    },
  },
  heldBack: { type: "tokens", id: 7, choice: 0, tokens: [72], delta: null },
  deltas: {
    ...{ type: "deltas", ids: [7, 8, 9], choices: [0, 1, 0], lengths: [2, 1, 0], tokens: [72, 101, 49_151] },
    ...{ texts: ["He", null, "."], promptTokens: [12, 0, 3], completionTokens: [2, 0, 9] },
  },
  turnedDown: { type: "turnedDown", id: 7, choice: 0 },
  finished: { type: "end", id: 7, choice: 0, end: { kind: "finished", reason: "stop", usage, outcome } },
  explained: {
    ...{ type: "end", id: 7, choice: 0 },
    end: { kind: "finished", reason: "stop", usage, outcome: { ...outcome, account } },
  },
  failed: {
    ...{ type: "end", id: 7, choice: 0 },
    end: {
      kind: "failed",
      error: { message: "no", status: 400, code: "x", param: null, errorType: "invalid_request_error" },
    },
  },
  cancelled: { type: "end", id: 7, choice: 1, end: { kind: "cancelled" } },
  lost: { type: "end", id: 7, choice: 1, end: { kind: "lost", reason: "refused", detail: "queueFull" } },
  withdrawn: { type: "withdrawn", id: 7, gone: true },
  digest: {
    ...{ type: "digest", snapshot, ageUs: 0 },
    engine: { state: "ok", detail: "", trips: 0, downUs: { hung: 0, failing: 0 } },
  },
  observed: {
    type: "observed",
    tokens: { ids: [3, 4], counts: [2, 1], lateUs: [-4000, Infinity] },
    effects: [
      { type: "finished", id: 3, reason: "stop", outcome },
      { type: "demoted", id: 4, reason: "wontFit" },
    ],
    steps: [
      {
        ...{ requests: 2, tokens: 40, planUs: 300.5, predictedUs: 9000, durationUs: 9100, failed: false },
        drafts: [{ drafted: 3, accepted: 2 }],
      },
    ],
  },
}
