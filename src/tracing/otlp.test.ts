/** Traces arrive at a collector: conventions, times, the client's trace, and what is said where none can be sent. */
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import type { Outcome } from "../core/protocol.ts"
import type { AnswerRecord } from "../explain/record.ts"
import { accountOf, missOf, outcomeOf, recordOf } from "../explain/testing.ts"
import { OtlpTraces } from "./otlp.ts"
import { openReceiver } from "./testing.ts"

let receiver: Awaited<ReturnType<typeof openReceiver>>
beforeEach(async () => {
  receiver = await openReceiver()
})
afterEach(() => receiver.close())

const TRACE = "0af7651916cd43dd8448eb211c80319c"
const PARENT = "b7ad6b7169203331"
const ARRIVED_MS = 1_700_000_000_000
const CHAT = { operation: "chat", model: "tiny:chat" } as const

async function sent(records: AnswerRecord[], headers: Record<string, string> = {}, endpoint = receiver.url) {
  const warnings: string[] = []
  const traces = new OtlpTraces({ endpoint, version: "1.2.3", warn: (message) => warnings.push(message) })
  traces.ended(records, CHAT, headers)
  await traces.close()
  return { spans: receiver.spans, warnings }
}

/** Queue 5 ms, prompt until 40, thoughts until 70, all over at 100. */
function thoughtful(changes: Partial<Outcome> = {}): AnswerRecord {
  const stage = { attained: true, worstLateUs: -2000, tokens: 4 }
  const outcome = outcomeOf({
    ...{ startedUs: 5000, firstTokenUs: 40_000, finishedUs: 100_000, ttftUs: 42_000, attained: true },
    stages: [
      { ...stage, stage: "prefill", tokens: 100 },
      { ...stage, stage: "thinking" },
      { ...stage, stage: "answer", tokens: 3, attained: false, worstLateUs: 1500 },
    ],
    account: accountOf({ answeringUs: 70_000 }),
    ...changes,
  })
  const slo = { ttftUs: 42_000, ttftSlowdown: 0, tpotUs: 8000, thinkingTpotUs: 10_000, maxGapUs: Infinity }
  return recordOf({ arrivedMs: ARRIVED_MS, endedMs: ARRIVED_MS + 100, outcome, slo, thinking: true })
}

describe("a request", () => {
  it("is a span of the client's trace, with one below it for each stage, by deadline and slack", async () => {
    const { spans } = await sent([thoughtful()], { traceparent: `00-${TRACE}-${PARENT}-01` })
    const [root] = spans.filter(({ parentId }) => parentId === PARENT)
    expect(root).toMatchObject({ name: "chat tiny:chat", kind: 2, traceId: TRACE, service: "slos-serve" })
    expect([root!.startMs, root!.endMs]).toEqual([ARRIVED_MS, ARRIVED_MS + 100])
    expect(root!.attributes).toMatchObject({
      "gen_ai.operation.name": "chat",
      "gen_ai.provider.name": "slos-serve",
      "gen_ai.request.model": "tiny:chat",
      "gen_ai.response.id": "r",
      "gen_ai.response.finish_reasons": ["stop"],
      "gen_ai.usage.input_tokens": 100,
      "gen_ai.usage.output_tokens": 7,
      "gen_ai.latency.time_in_queue": 0.005,
      "gen_ai.latency.time_to_first_token": 0.04,
      "gen_ai.latency.e2e": 0.1,
      "slos_serve.class": "chat",
      "slos_serve.tenant": "default",
      "slos_serve.kept": true,
    })
    const stages = spans.filter(({ parentId }) => parentId === root!.spanId)
    expect(stages.every(({ traceId }) => traceId === TRACE)).toBe(true)
    const shown = stages.map(({ name, startMs, endMs, attributes }) => [
      ...[name, startMs - ARRIVED_MS, endMs - ARRIVED_MS],
      ...[attributes["slos_serve.stage.deadline_ms"], attributes["slos_serve.stage.slack_ms"]],
    ])
    // The first token is due at 42, three thoughts later the last one, three tokens of the answer after that.
    expect(shown).toEqual([
      ["queue", 0, 5, undefined, undefined],
      ["prefill", 5, 40, 42, 2],
      ["thinking", 40, 70, 42 + 3 * 10, 2],
      ["answer", 70, 100, 42 + 3 * 10 + 3 * 8, -1.5],
    ])
  })

  it("begins a trace of its own where its client has none, or one that cannot be read", async () => {
    const { spans } = await sent([thoughtful()], { traceparent: "00-nonsense" })
    expect(spans.find(({ name }) => name === "chat tiny:chat")).toMatchObject({ parentId: "" })
    expect(spans).toHaveLength(5)
  })

  it("is not sent where its client does not sample its trace", async () => {
    expect((await sent([thoughtful()], { traceparent: `00-${TRACE}-${PARENT}-00` })).spans).toEqual([])
  })

  it("says why it missed, and what was decided when", async () => {
    const account = accountOf({
      miss: missOf({ cause: "turnedDown", bound: "time" }),
      decisions: [{ afterUs: 3000, what: "turnedDown", reason: "wontFit", bound: "time" }],
    })
    const { spans } = await sent([thoughtful({ attained: false, account })])
    const root = spans.find(({ name }) => name === "chat tiny:chat")!
    expect(root.attributes).toMatchObject({ "slos_serve.kept": false, "slos_serve.reason": "turned_down" })
    expect(root.events).toEqual([
      { name: "turnedDown", atMs: ARRIVED_MS + 3, attributes: { reason: "wontFit", bound: "time" } },
    ])
    expect(root.status.code).toBe(0)
  })

  it("that is refused is an error without stages; several answers have stages each", async () => {
    const error = { code: "queue_full", message: "full" }
    await sent([recordOf({ end: "refused", outcome: null, error })])
    const [refused] = receiver.spans.splice(0)
    expect(refused).toMatchObject({ status: { code: 2, message: "full" } })
    expect(refused!.attributes).toMatchObject({ "error.type": "queue_full" })
    const two = [0, 1].map((choice) => ({ ...thoughtful(), choice, choices: 2 }))
    const { spans } = await sent(two)
    expect(
      spans.filter(({ name }) => name === "answer").map(({ attributes }) => attributes["slos_serve.choice"]),
    ).toEqual([0, 1])
    expect(
      spans.find(({ name }) => name === "chat tiny:chat")!.attributes["gen_ai.usage.output_tokens"],
    ).toBe(14)
  })

  it("best effort has no deadlines", async () => {
    const { spans } = await sent([{ ...thoughtful({ tier: "bestEffort" }), tier: "bestEffort" }])
    for (const { attributes } of spans) expect(attributes).not.toHaveProperty("slos_serve.stage.deadline_ms")
  })
})

describe("the collector", () => {
  it("is asked by its base or by its path", async () => {
    await sent([thoughtful()])
    await sent([thoughtful()], {}, `${receiver.url}/v1/traces`)
    await sent([thoughtful()], {}, `${receiver.url}/`)
    expect(receiver.asked.map(({ path, type }) => [path, type])).toEqual(
      Array(3).fill(["/v1/traces", "application/x-protobuf"]),
    )
  })

  it("that is away is told of once, and nothing else fails", async () => {
    await receiver.close()
    const { warnings } = await sent([thoughtful(), thoughtful()])
    expect(warnings).toHaveLength(1)
    expect(warnings[0]).toMatch(/traces cannot be sent to .*; check --otlp-endpoint/)
  }, 30_000)
})
